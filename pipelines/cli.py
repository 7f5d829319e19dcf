"""The `mmdata` command: each command calls one function. Nothing is decided here but words, exit codes and tables.

Exit codes: 0 done, 1 it failed (full disk, an interrupted or broken run), 2 it was asked wrongly. One line on stderr
says what, which and the fix. Imports of the work itself are inside the commands: `mmdata --help` stays quick.
"""

from __future__ import annotations

import contextlib
import errno
import json as json_words
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="mmdata",
    help="Raw text, images, audio and video in; exact, interleaved token batches out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
fit_app = typer.Typer(help="Train a codec of your own.", no_args_is_help=True)
evaluate_app = typer.Typer(help="Measure a codec.", no_args_is_help=True)
layout_app = typer.Typer(help="Look at layouts.", no_args_is_help=True)
app.add_typer(fit_app, name="fit")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(layout_app, name="layout")

_INTERRUPTED = 130  # what typer returns for Ctrl-C

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Config = Annotated[Path, typer.Option(help="What to train, and on what: a TOML file (docs/files.md).")]
Out = Annotated[
    Path | None,
    typer.Option(help="The folder to write to; else runs/fit-NAME-REVISION. The same command goes on there."),
]
Excludes = Annotated[
    list[Path] | None,
    typer.Option(help="A file or folder that must not be trained on (repeatable); near copies are dropped too."),
]
ExcludedTexts = Annotated[
    list[Path] | None,
    typer.Option(help="A file or folder that must not be trained on (repeatable): files of the same bytes."),
]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        import mmdata

        print(mmdata.__version__)
        raise typer.Exit()


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="The recipe: a TOML file (docs/files.md).")],
    out: Annotated[Path, typer.Option(help="The dataset's folder. The same command again goes on after a stop.")],
    workers: Annotated[int, typer.Option(help="Worker processes; never changes the output. 0: one a core.")] = 0,
    executor: Annotated[str, typer.Option(help="Where the units run: local, or ray (extra ray).")] = "local",
    dry_run: Annotated[
        bool, typer.Option(help="Say what there is to do, and what rules would drop of a sample; write nothing.")
    ] = False,
    explain: Annotated[bool, typer.Option(help="Say which stages would run, and why; write nothing.")] = False,
    json: Json = False,
) -> None:
    """Build a dataset from a recipe."""
    from pipelines.build.engine import build as run_build
    from pipelines.build.recipe import load_recipe
    from pipelines.build.report import print_report

    report = run_build(
        load_recipe(recipe),
        out,
        workers=workers,
        executor=executor,
        dry_run=dry_run,
        explain=explain,
        progress=not json,
    )
    _say(json, report.to_json(), lambda: print_report(report))


@app.command()
def recode(
    dataset: Annotated[Path, typer.Argument(help="The dataset whose texts are to be written anew.")],
    text: Annotated[str, typer.Option(help="The codec: a name, or the path of a tokenizer.json or a .model.")],
    out: Annotated[Path, typer.Option(help="The new dataset's folder. The same command again goes on after a stop.")],
    workers: Annotated[int, typer.Option(help="Worker processes; never changes the output. 0: one a core.")] = 0,
    json: Json = False,
) -> None:
    """Write a dataset's texts in another vocabulary's codes, without its sources."""
    from pipelines.build.recode import print_recoded
    from pipelines.build.recode import recode as run_recode

    report = run_recode(dataset, text, out, workers=workers, progress=not json)
    _say(json, report.to_json(), lambda: print_recoded(report))


@app.command()
def decontaminate(
    dataset: Annotated[Path, typer.Argument(help="The dataset to audit; nothing in it is changed.")],
    against: Annotated[
        list[Path], typer.Option(help="A folder or file of evaluation sets (repeatable); see docs/duplicates.md.")
    ],
    json: Json = False,
) -> None:
    """Say which samples meet an evaluation set. Exit code 1 where some do."""
    from pipelines.dedup.audit import audit, print_audit

    report = audit(dataset, against, progress=not json)
    _say(json, report.to_json(), lambda: print_audit(report))
    if report.found:
        raise typer.Exit(1)


@fit_app.command("image")
def fit_image(config: Config, out: Out = None, exclude: Excludes = None) -> None:
    """Train an image codec from folders of pictures."""
    from pipelines.fit.images import fit_image as run

    _say(False, _asked(run, config, out, exclude=exclude or []))


@fit_app.command("audio")
def fit_audio(config: Config, out: Out = None, exclude: Excludes = None) -> None:
    """Train a speech codec from folders of recordings."""
    from pipelines.fit.audio import fit_audio as run

    _say(False, _asked(run, config, out, exclude=exclude or []))


@fit_app.command("text")
def fit_text(config: Config, out: Out = None, exclude: ExcludedTexts = None) -> None:
    """Train a SentencePiece model from folders of text, JSON lines and datasets."""
    from pipelines.fit.evaluate_text import print_fertility
    from pipelines.fit.text import fit_text as run

    print_fertility(_asked(run, config, out, exclude=exclude or []))


@fit_app.command("jpeg")
def fit_jpeg(config: Config, out: Out = None, exclude: Excludes = None) -> None:
    """Learn the byte pairs of the jpeg-bytes codec from folders of pictures."""
    from pipelines.fit.jpeg import fit_jpeg as run

    _say(False, _asked(run, config, out, exclude=exclude or []))


@fit_app.command("classifier")
def fit_classifier(config: Config, out: Out = None, exclude: ExcludedTexts = None) -> None:
    """Fit a quality classifier for [curate.quality] from folders of good and of bad texts."""
    from pipelines.fit.classifier import fit_classifier as run
    from pipelines.fit.classifier_figures import print_classifier

    print_classifier(_asked(run, config, out, exclude=exclude or []))


@evaluate_app.command("image")
def evaluate_image(
    codec: Annotated[
        list[str] | None, typer.Option(help="A codec's name, or the path of its file (repeatable).")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="A folder of pictures. Else seven photographs.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Pixels on a side of the centre crops.")] = 256,
    compare: Annotated[
        bool, typer.Option(help="With image files of about the same size, and published figures.")
    ] = True,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG: originals beside what comes back.")] = None,
    json: Json = False,
) -> None:
    """PSNR, SSIM and code use on centre crops: of a folder, or of seven photos of scikit-image and scikit-learn."""
    from pipelines.build.progress import Progress
    from pipelines.fit.evaluate_images import evaluate_images as run
    from pipelines.look.codecs_print import Sheet, print_images

    sheet = Sheet() if picture is not None else None
    with Progress(shown=not json) as bars:
        show, follow = sheet and sheet.add, bars.follow("pictures")
        answer = _asked(run, codec or ["image-fsq16"], folder, size, compare=compare, show=show, follow=follow)
    if sheet is not None and picture is not None:
        sheet.save(picture)
    _say(json, answer, lambda: print_images(answer))


@evaluate_app.command("audio")
def evaluate_audio(
    folder: Annotated[
        Path, typer.Argument(help="Recordings; with --clips, the folder that holds the packages listed.")
    ],
    codec: Annotated[
        list[str] | None, typer.Option(help="A codec's name or file, opus-6 (kbit/s) or griffin-lim; repeatable.")
    ] = None,
    clips: Annotated[Path | None, typer.Option(help="A list of clips, as benchmarks/eval.tsv.")] = None,
    seconds: Annotated[float, typer.Option(help="How much of each recording.")] = 4.0,
    picture: Annotated[Path | None, typer.Option(help="Spectrograms, originals beside codecs: a PNG.")] = None,
    json: Json = False,
) -> None:
    """Log-mel L1, and with the extra `eval` STOI, ESTOI and PESQ, of codecs on recordings."""
    from pipelines.fit.evaluate_audio import evaluate_audio as run
    from pipelines.fit.evaluate_audio import print_rows

    rows = _asked(run, codec or ["speech-melfsq"], folder, clips, seconds, picture)
    _say(json, rows, lambda: print_rows(rows))


@evaluate_app.command("text")
def evaluate_text(
    folder: Annotated[Path, typer.Argument(help="Text files, a folder a language.")],
    codec: Annotated[
        str, typer.Option(help="A name, or the path of a tokenizer.json or a SentencePiece .model.")
    ] = "text-spm16k",
    json: Json = False,
) -> None:
    """Bytes a token and tokens a character by language, and whether every text comes back exactly."""
    from pipelines.fit.evaluate_text import evaluate_text as run
    from pipelines.fit.evaluate_text import print_fertility

    rows = _asked(run, codec, folder)
    _say(json, rows, lambda: print_fertility(rows))


@app.command()
def stats(dataset: Path, json: Json = False) -> None:
    """What a dataset holds: samples and tokens by source, kind, language and split."""
    from pipelines.look.tables import dataset_stats, print_stats

    numbers = dataset_stats(dataset)
    _say(json, numbers, lambda: print_stats(numbers))


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="A dataset or a run.")],
    html: Annotated[Path | None, typer.Option(help="Write one page with pictures and sounds instead.")] = None,
    samples: Annotated[int, typer.Option(help="Samples a source.")] = 6,
) -> None:
    """Look at (and listen to) what was built: originals beside what comes back out of the codes."""
    if html is None:
        from pipelines.look.tables import print_samples

        print_samples(folder, samples)
    else:
        from pipelines.look.page import write_page

        print(f"wrote {write_page(folder, html, samples)}")


@app.command()
def verify(
    dataset: Annotated[Path, typer.Argument(help="A dataset's folder, or that of one of its sources.")],
    quick: Annotated[bool, typer.Option(help="Manifests, catalogs, sizes and checksums only: no record.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; never changes the answer. 0: one a core.")] = 0,
    layout: Annotated[
        list[str] | None, typer.Option(help="A layout file that cached plans are of (repeatable).")
    ] = None,
    json: Json = False,
) -> None:
    """Check every checksum, count, item table and span of a dataset, and its cached plans."""
    from mmdata.verify import verify as run
    from pipelines.build.progress import Progress
    from pipelines.look.tables import print_verified

    with Progress(shown=not json) as bars:
        report = run(dataset, full=not quick, workers=workers, layouts=layout or (), progress=bars.follow("verify"))
    _say(json, report.to_json(), lambda: print_verified(report))
    if not report.ok:
        raise typer.Exit(1)


@layout_app.command("show")
def layout_show(
    name: Annotated[str, typer.Argument(help="A shipped layout's name, or the path of a TOML file.")] = "mmdata",
    toml: Annotated[bool, typer.Option("--toml", help="Print its file, as a start for one's own.")] = False,
    json: Json = False,
) -> None:
    """What a layout keeps, its ids, what pictures and film cost, and a row of it, token by token."""
    from pipelines.look import layout_print, layouts

    if toml:
        print(_asked(layouts.layout_file, name), end="")
        return
    shown = _asked(layouts.show_layout, name)
    _say(json, shown.to_json() if json else None, lambda: layout_print.print_layout(shown))


@layout_app.command("list")
def layout_list(json: Json = False) -> None:
    """The shipped layouts, a line each."""
    from pipelines.look import layout_print, layouts

    _say(json, layouts.list_layouts(), layout_print.print_layouts)


@app.command()
def plan(
    run: Annotated[Path, typer.Argument(help="A run file or a run's folder.")],
    data_shards: Annotated[int, typer.Option(min=1, help="Say what each of so many data shards reads.")] = 1,
    json: Json = False,
) -> None:
    """What training will read, before it reads it: steps an epoch, fill, tokens by source, kind and stage, bytes."""
    from mmdata.errors import UserError
    from pipelines.look.plan import plan_run, print_plan

    report = plan_run(run, data_shards, progress=not json)
    _say(json, report, lambda: print_plan(report))
    if report["error"]:
        raise UserError(report["error"])


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A run file or a run's folder.")],
    step: Annotated[int | None, typer.Option(help="The documents of this step's batch, from 0.")] = None,
    row: Annotated[int | None, typer.Option(help="One row of its batch.")] = None,
    document: Annotated[
        str | None, typer.Option(help="The steps that see a document: its id, a beginning of it, or its uri.")
    ] = None,
    until: Annotated[int | None, typer.Option(help="The last step looked at; else the run's last.")] = None,
    json: Json = False,
) -> None:
    """Which documents a training step sees, or which steps see a document."""
    from mmdata.errors import UserError
    from pipelines.look import explain as look

    if (step is None) == (document is None):
        raise UserError(
            "give either --step N, for the documents of a batch, or --document ID, for the steps that see it"
        )
    if document is None and step is not None:
        if until is not None:
            raise UserError("--until goes with --document: leave it out, or ask for a document")
        batch = look.explain_step(run, step, row, progress=not json)
        _say(json, batch.to_json() if json else None, lambda: look.print_batch(batch))
    elif document is not None:
        if row is not None:
            raise UserError("--row goes with --step: leave it out, or ask for a step")
        seen = look.explain_document(run, document, until, progress=not json)
        _say(json, [found.to_json() for found in seen] if json else None, lambda: look.print_seen(seen))


@app.command()
def train(
    run: Annotated[Path, typer.Argument(help="The run file (docs/files.md).")],
    out: Annotated[Path, typer.Option(help="The run's folder. The same command again resumes.")],
) -> None:
    """Train the bundled model on a dataset."""
    from pipelines.train.trainer import train as run_training

    run_training(run, out)


@app.command()
def ablate(
    run: Annotated[Path, typer.Argument(help="The run file (docs/files.md), of one stage.")],
    vary: Annotated[list[str], typer.Option(help="SOURCE=SHARE,SHARE,...: shares of the tokens to try (repeatable).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the trainings; else runs/ablate/NAME of the run. The same command again goes on."),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of the first training, whose tokens the others learn too; 0: the run's.")
    ] = 0,
    tokens: Annotated[
        int, typer.Option(min=0, help="Instead of steps: tokens that count in the loss, of each training.")
    ] = 0,
    seeds: Annotated[int, typer.Option(help="Trainings a mixture, with a seed each: shows what is noise.")] = 1,
    json: Json = False,
) -> None:
    """Train the run on several mixtures of its sources, as many tokens of each, and compare validation loss by kind."""
    from dataclasses import asdict

    from pipelines.look.ablation_page import print_ablation, write_ablation_page
    from pipelines.train.ablate import ablate as run_ablation
    from pipelines.train.ablate import parse_shares

    folder = out or Path("runs") / "ablate" / run.resolve().name.removesuffix(".toml")
    # With --json stdout is for the answer: what each training says when it ends goes to stderr.
    with contextlib.redirect_stdout(sys.stderr if json else sys.stdout):
        points = run_ablation(run, folder, parse_shares(vary), steps=steps, seeds=seeds, tokens=tokens)
    write_ablation_page(points, folder)
    _say(json, [asdict(point) for point in points], lambda: print_ablation(points, folder))


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    kind: Annotated[str, typer.Option(help="What to write: text, image or audio.")] = "text",
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "",
    out: Annotated[Path | None, typer.Option(help="The file to write: .txt, .png or .wav.")] = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> None:
    """Let the trained model continue, and write it back as text, PNG or WAV."""
    from pipelines.train.sample import sample as run_sample

    print(run_sample(run, kind=kind, prompt=prompt, out=out, seed=seed, temperature=temperature))


def _asked(run: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What `run` returns. Codecs and measurements know no UserError: their ValueError and a missing extra are one."""
    from mmdata.errors import UserError

    try:
        return run(*args, **options)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; pip install 'mmdata[eval]'") from error


def _say(as_json: bool, answer: Any, pretty: Any = None) -> None:
    if as_json:
        print(json_words.dumps(answer, indent=1, ensure_ascii=False, default=str))
    elif pretty is not None:
        pretty()
    else:
        from pipelines.look.tables import print_answer

        print_answer(answer)


def main() -> None:
    """The console command: every expected failure becomes one line and an exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # typer's own: wrong words on the command line
            error.show()
            sys.exit(error.exit_code)
        _explain(error)
        raise
    if code == _INTERRUPTED:
        _leave(1, "interrupted; the same command again goes on from here")
    sys.exit(code)


def _explain(error: Exception) -> None:
    """Leave with one line where the error is one that a user can mend; return where it is a bug of ours."""
    from mmdata.errors import RunError, UserError

    if isinstance(error, UserError):
        _leave(2, str(error))
    if isinstance(error, RunError):
        _leave(1, str(error))
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "the output"
        _leave(1, f"no space left on the disk of {where}; free some and run the command again")
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        _leave(2, f"{error.strerror}: {error.filename}; check the path")


def _leave(code: int, line: str) -> None:
    print(f"mmdata: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
