#!/usr/bin/env bash
# The whole road on the sample media: build, plan, train, sample, look.
#   examples/demo.sh runs/demo      from the repository's folder, with `mmdata` on the PATH (make demo does both)
# The same command again goes on where it was stopped. MMDATA_DEMO_STEPS=4 trains for 4 steps only, to try the road;
# the losses are then shown, not held against their bars.
set -euo pipefail

dir=${1:?usage: examples/demo.sh DIR, from the repository\'s folder}
dir=${dir%/}
steps=${MMDATA_DEMO_STEPS:-}
if [ ! -f examples/demo.toml ]; then
    echo "examples/demo.sh: run it from the repository's folder; there is no examples/demo.toml in $PWD" >&2
    exit 2
fi
begun=$SECONDS

run() {
    echo
    printf '$'
    printf ' %q' "$@"
    echo
    "$@"
}

# The run file names runs/demo/data; for another folder, or other steps, a copy of it beside the data says so.
run_file=examples/demo-run.toml
if [ "$dir" != runs/demo ] || [ -n "$steps" ]; then
    edits=(-e 's|^data = .*|data = "data"|')
    if [ -n "$steps" ]; then
        edits+=(-e "s|^steps = .*|steps = $steps|")
    fi
    mkdir -p "$dir"
    run_file=$dir/demo-run.toml
    sed "${edits[@]}" examples/demo-run.toml > "$run_file"
fi

run mmdata build examples/demo.toml --out "$dir/data"
run mmdata plan "$run_file"
run mmdata train "$run_file" --out "$dir/run"
run mmdata sample "$dir/run" --kind text --prompt "The image" --out "$dir/run/samples/text.txt"
run mmdata sample "$dir/run" --kind image --prompt "A flower." --out "$dir/run/samples/image.png"
run mmdata sample "$dir/run" --kind audio --out "$dir/run/samples/audio.wav"
run mmdata show "$dir/data" --html "$dir/data.html"
run mmdata show "$dir/run" --html "$dir/run.html"

echo
python3 examples/demo_summary.py "$dir" --seconds $((SECONDS - begun)) ${steps:+--shortened}
