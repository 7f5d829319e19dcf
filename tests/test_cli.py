"""The command line: help for every command; for bad input one line with the fix, an exit code, nothing half-made."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from pipelines import cli

COMMANDS = (
    "build", "fit", "fit image", "fit audio", "fit jpeg", "fit text", "fit classifier", "evaluate", "evaluate image",
    "evaluate audio", "evaluate text", "recode", "stats", "show", "verify", "layout", "layout list", "layout show",
    "plan", "explain", "train", "sample", "ablate", "decontaminate",
)  # fmt: skip

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """`mmdata ARGS` in this process: (exit code, stderr)."""

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mmdata", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0), capfd.readouterr().err

    return run


def assert_refused(answer: tuple[int, str], *words: str, code: int = 2) -> None:
    """One line, of mmdata, that holds these words."""
    found, err = answer
    assert err.startswith("mmdata: ") and err.count("\n") == 1, err
    assert found == code, err
    for word in words:
        assert word in err


def assert_no_dataset(out: Path, say: Say) -> None:
    assert not list(out.glob("manifest.json")) and not list(out.glob("*/manifest.json"))
    assert_refused(say("stats", out), "manifest.json" if out.exists() else str(out))


def recipe_in(folder: Path, words: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.toml"
    path.write_text(words, "utf-8")
    return path


def text_recipe(folder: Path, files: int = 2, characters: int = 300, head: str = "", end: str = "") -> Path:
    """A recipe over text files that are drawn here; no two are alike."""
    random = np.random.default_rng(0)
    (folder / "notes").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        letters = random.integers(97, 123, characters)
        letters[random.random(characters) < 0.17] = 32
        (folder / "notes" / f"{number}.txt").write_bytes(letters.astype(np.uint8).tobytes())
    source = '[[source]]\nname = "notes"\nformat = "text"\npath = "notes"\n'
    return recipe_in(folder, f"{head}\n{source}{end}\n")


def mmdata(*args: object, **options: object) -> subprocess.Popen[str]:
    """The command in a process of its own, in a group of its own (as a terminal starts it)."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options,
    )  # fmt: skip


# Help


def test_every_command_has_help() -> None:
    def walk(command: object, path: str) -> Iterator[str]:
        for name, inner in getattr(command, "commands", {}).items():
            yield f"{path} {name}".strip()
            yield from walk(inner, f"{path} {name}".strip())

    assert sorted(walk(typer.main.get_command(cli.app), "")) == sorted(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_says_what_a_command_does(command: str) -> None:
    answer = CliRunner().invoke(cli.app, [*command.split(), "--help"])
    assert answer.exit_code == 0
    assert "Usage:" in answer.output
    if command:
        assert f"mmdata {command}".split()[-1] in answer.output


@pytest.mark.parametrize("kind", ["image", "audio", "text", "jpeg", "classifier"])
def test_every_option_of_a_fit_has_help_that_is_true_of_it(kind: str) -> None:
    fit = typer.main.get_command(cli.app).commands["fit"].commands[kind]  # type: ignore[attr-defined]
    said = {option.name: option.help for option in fit.params if option.name != "help"}
    assert set(said) == {"config", "out", "exclude"} and all(said.values())
    assert ("near copies" in said["exclude"]) == (kind not in ("text", "classifier"))


def test_the_command_starts_quickly_and_knows_its_version() -> None:
    begun = time.monotonic()
    process = mmdata("--help")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "build" in out and not err
    assert time.monotonic() - begun < 20  # seconds would mean that it loads jax; the bound is for busy machines
    assert CliRunner().invoke(cli.app, ["--version"]).output.strip()


def test_a_wrong_option_names_the_nearest(say: Say) -> None:
    code, err = say("build", "recipe.toml", "--out", "data", "--worker", "2")
    assert code == 2
    assert "--worker" in err and "--workers" in err


# Recipes


def test_a_missing_recipe(say: Say, tmp_path: Path) -> None:
    assert_refused(say("build", tmp_path / "no.toml", "--out", tmp_path / "out"), "no.toml", "check the path")
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_no_toml(say: Say, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "seed = = 1\n")
    assert_refused(say("build", recipe, "--out", tmp_path / "out"), "no TOML file", "line 1")


def test_a_missing_folder(say: Say, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, '[[source]]\nname = "web"\nformat = "html"\npath = "nowhere"\n')
    assert_refused(say("build", recipe, "--out", tmp_path / "out"), "web", "nowhere")
    assert_no_dataset(tmp_path / "out", say)


def test_an_empty_folder(say: Say, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    recipe = recipe_in(tmp_path, '[[source]]\nname = "web"\nformat = "html"\npath = "empty"\n')
    assert_refused(say("build", recipe, "--out", tmp_path / "out"), "web", "is empty", "path")
    assert_no_dataset(tmp_path / "out", say)


def test_a_folder_of_other_files(say: Say, tmp_path: Path) -> None:
    recipe = text_recipe(tmp_path).read_text().replace('"text"', '"html"')
    assert_refused(say("build", recipe_in(tmp_path, recipe), "--out", tmp_path / "out"), "nothing that it reads", "txt")


def test_a_variable_that_is_not_set(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMDATA_TEST_NOWHERE", raising=False)
    recipe = recipe_in(tmp_path, '[[source]]\nname = "web"\nformat = "html"\npath = "${MMDATA_TEST_NOWHERE}/web"\n')
    assert_refused(say("build", recipe, "--out", tmp_path / "out"), "MMDATA_TEST_NOWHERE", "not set")


@pytest.mark.parametrize(
    ("head", "end", "wrong", "nearest"),
    [
        ("keep_medai = 'none'", "", "keep_medai", "keep_media"),
        ("[image]\ntoken = 64", "", "image.token", "tokens"),
        ("[codec]\ntext = 'text-spm16k'", "", "codec", "codecs"),
        ("", "languge = 'en'", "languge", "language"),
    ],
)
def test_an_unknown_key_names_the_nearest(
    head: str, end: str, wrong: str, nearest: str, say: Say, tmp_path: Path
) -> None:
    recipe = text_recipe(tmp_path, head=head, end=end)
    assert_refused(say("build", recipe, "--out", tmp_path / "out"), repr(wrong), f"id you mean {nearest!r}?")
    assert_no_dataset(tmp_path / "out", say)


def test_an_unknown_format_names_the_nearest(say: Say, tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, text_recipe(tmp_path).read_text().replace('"text"', '"txt"'))
    assert_refused(say("build", recipe, "--out", tmp_path / "out"), "'txt'", "id you mean 'text'?", "jsonl")


@pytest.mark.parametrize("line", ["text = 'text-smp16k'", "image = 'image-fsq61'", "audio = 'speech-melfsq@7'"])
def test_an_unknown_codec_names_the_nearest(line: str, say: Say, tmp_path: Path) -> None:
    kind, name = line.replace("'", "").split(" = ")
    answer = say("build", text_recipe(tmp_path, head=f"[codecs]\n{line}"), "--out", tmp_path / "out")
    near = {"text": "text-spm16k", "image": "image-fsq16", "audio": "speech-melfsq"}[kind]
    assert_refused(answer, f"codecs.{kind}", name, near)
    assert_no_dataset(tmp_path / "out", say)


def test_an_out_that_is_a_file_or_holds_other_files(say: Say, tmp_path: Path) -> None:
    recipe = text_recipe(tmp_path / "in")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"mine")
    assert_refused(say("build", recipe, "--out", tmp_path / "photos"), "holiday.jpg", "--out")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]
    assert_refused(say("build", recipe, "--out", tmp_path / "photos" / "holiday.jpg"), "is a file")
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"mine"


# What reads a dataset or a run


@pytest.mark.parametrize("command", ["stats", "verify", "show"])
def test_what_is_no_dataset_is_refused(command: str, say: Say, tmp_path: Path) -> None:
    assert_refused(say(command, tmp_path / "nowhere"), "nowhere")
    assert_refused(say(command, tmp_path), tmp_path.name)


def test_a_run_file_with_mistakes(say: Say, tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.write_text('data = "data"\nbatchsize = 2\n')
    assert_refused(say("plan", run), "'batchsize'", "did you mean 'batch_size'?")
    run.write_text('data = "data"\n')
    for command in (["plan", run], ["train", run, "--out", tmp_path / "run"], ["explain", run, "--step", 0]):
        assert_refused(say(*command), "data = 'data' is not there", "build it first")
    run.write_text("seed = 1\n")
    assert_refused(say("plan", run), "data")
    assert not (tmp_path / "run").exists()


def test_sampling_from_what_is_no_run(say: Say, tmp_path: Path) -> None:
    assert_refused(say("sample", tmp_path, "--kind", "text"), "no run's folder", "mmdata train")


def test_a_fit_config_with_mistakes(say: Say, tmp_path: Path) -> None:
    config = tmp_path / "fit.toml"
    config.write_text('name = "mine"\nlicence = "CC0-1.0"\nsede = 1\n[train]\nsteps = 1\n[[data]]\n')
    for kind in ("image", "audio"):
        assert_refused(say("fit", kind, "--config", config, "--out", tmp_path / "out"), "'sede'", "'seed'")
    assert not (tmp_path / "out").exists()


# Real accidents, in processes of their own


def test_another_datasets_folder_is_left_alone(tmp_path: Path, say: Say) -> None:
    recipe, out = text_recipe(tmp_path / "a"), tmp_path / "out"
    code, err = say("build", recipe, "--out", out, "--workers", 1)
    assert code == 0, err
    before = {
        path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and ".work" not in path.parts
    }
    other = recipe_in(tmp_path / "a", recipe.read_text().replace('"notes"\nformat', '"diary"\nformat'))
    assert_refused(say("build", other, "--out", out), str(out), "another", "--out")
    after = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and ".work" not in path.parts}
    assert after == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    yield disk
    if mounted:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_no_dataset(tmp_path: Path, small_disk: Path, say: Say) -> None:
    """A file system of 3 MB, or, where none may be mounted, files of at most 1 MB: 4 MB of text fit in neither."""
    recipe, out = text_recipe(tmp_path / "in", files=8, characters=500_000), small_disk / "out"
    mounted = os.path.ismount(small_disk)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    process = mmdata("build", recipe, "--out", out, "--workers", 1, **({} if mounted else {"preexec_fn": limit}))
    _, err = process.communicate(timeout=300)
    assert_refused((process.returncode, err), "no space left", "command again", code=1)
    assert_no_dataset(out, say)
    if mounted:
        subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    code, err = say("build", recipe, "--out", out, "--workers", 1)
    assert code == 0, err
    assert say("verify", out)[0] == 0


def test_ctrl_c_in_a_build_is_one_line_and_the_same_command_goes_on(tmp_path: Path, say: Say) -> None:
    recipe, out = text_recipe(tmp_path / "in", files=12, characters=400_000), tmp_path / "out"
    process = mmdata("build", recipe, "--out", out, "--workers", 2)
    wait_for(lambda: list(out.glob(".work/ingest/**/*.done.json")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = process.communicate(timeout=120)
    assert_refused((process.returncode, err), "interrupted", "the same command again", code=1)
    assert_no_dataset(out, say)
    code, err = say("build", recipe, "--out", out, "--workers", 2)
    assert code == 0, err
    assert say("verify", out)[0] == 0


def test_ctrl_c_in_training_is_one_line_and_the_same_command_goes_on(tmp_path: Path, say: Say) -> None:
    recipe, run, out = text_recipe(tmp_path, files=40, characters=2_000), tmp_path / "run.toml", tmp_path / "run"
    assert say("build", recipe, "--out", tmp_path / "data", "--workers", 1)[0] == 0
    words = 'data = "data"\nseq_len = 64\nbatch_size = 2\nsteps = {}\n[model]\nlayers = 1\nwidth = 16\nheads = 2\n'
    words += "head_dim = 8\nmlp = 16\n[optimizer]\ndecay_steps = 8\n[checkpoint]\nevery = 2\n"
    run.write_text(words.format(1_000_000))
    process = mmdata("train", run, "--out", out)
    wait_for(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") > 4, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert_refused((process.returncode, err), "interrupted", "the same command again", code=1)
    assert not (out / "summary.json").exists()
    done = (out / "metrics.jsonl").read_text().count("\n")
    run.write_text(words.format(done + 2))
    code, err = say("train", run, "--out", out)
    assert code == 0, err
    assert (out / "summary.json").exists()


def wait_for(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until it is true; fails where the process ends first."""
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
