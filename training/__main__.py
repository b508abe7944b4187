"""`python -m training <stage> --config FILE.toml`: the stages of a run, one by one or all in order."""

import ctypes
import sys
from pathlib import Path
from typing import Annotated

import typer

from training.config import BUNDLES_FOLDER, CORPUS_FOLDER, ConfigError, Places, read_config
from training.plan import STAGES, chat_files, policy_of, prepared_folder, stages_until, trained
from training.stages import Run, Stage, run_stage
from worker.inference.model_bundle import DEFAULT_BUNDLE

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h

ConfigOption = Annotated[Path, typer.Option("--config", help="a TOML file; see training/configs")]
DataOption = Annotated[Path, typer.Option("--data-dir", help="what {data} in the configuration means")]
ModelsOption = Annotated[Path, typer.Option("--models-dir", help="what {models} in the configuration means")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="where runs write, a folder each")]
BundlesOption = Annotated[Path, typer.Option("--bundles-dir", help="where bundles go, a folder each")]
ForceOption = Annotated[bool, typer.Option("--force", help="do it again although its output holds")]


def main() -> None:
    """Run the command line; a configuration that can't be used is told in one message, exit code 2."""
    try:
        app()
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed memory instead of handing it back, which doubled the speed of training on CPU.

    Every step frees and takes hundreds of megabytes; taken anew from the system, each page faults. Other C libraries lack
    the call and go without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _add_command(stages: tuple[Stage, ...], *, name: str, help_text: str) -> None:
    def command(
        config: ConfigOption,
        data_dir: DataOption = Path("data"),
        models_dir: ModelsOption = Path("models"),
        runs_dir: RunsOption = Path("runs"),
        bundles_dir: BundlesOption = BUNDLES_FOLDER,
        force: ForceOption = False,
    ) -> None:
        _keep_freed_memory()
        places = Places(data=data_dir, models=models_dir, runs=runs_dir, bundles=bundles_dir)
        run = Run(read_config(config), places)
        for stage in stages:
            if not stage.applies(run.config):
                typer.echo(f"{stage.name}: not part of this configuration")
            elif run_stage(stage, run, force=force):
                typer.echo(f"{stage.name}: finished, in {run.folder(stage.name)}")
            else:
                typer.echo(f"{stage.name}: unchanged, in {run.folder(stage.name)}")

    app.command(name, help=help_text)(command)


for _stage in STAGES:
    _add_command((_stage,), name=_stage.name, help_text=f"The stage {_stage.name}.")
_add_command(STAGES, name="all", help_text="Every stage in order; those whose output still holds are skipped.")


@app.command("score")
def score_command(
    config: ConfigOption,
    bundle: Annotated[Path, typer.Option("--bundle", help="the finished bundle's folder")] = DEFAULT_BUNDLE,
    data_dir: DataOption = Path("data"),
    models_dir: ModelsOption = Path("models"),
    runs_dir: RunsOption = Path("runs"),
    threads: int = 2,
) -> None:
    """Score a finished bundle on the configuration's data; exit code 1 where macro-F1 is not what its manifest says."""
    from training.score import score_bundle

    run = Run(read_config(config), Places(data=data_dir, models=models_dir, runs=runs_dir), threads)
    for stage in stages_until("prepare"):
        if stage.applies(run.config):
            run_stage(stage, run)
    scored = score_bundle(
        bundle,
        prepared=prepared_folder(run),
        chats=chat_files(run),
        policy=policy_of(run.config),
        threads=threads,
        seed=run.config.seed,
    )
    typer.echo(scored.tables)
    if scored.differing:
        typer.echo(f"error: macro-F1 is not the manifest's on {', '.join(scored.differing)}", err=True)
        raise typer.Exit(1)


@app.command("compare-exports")
def compare_exports_command(config: ConfigOption, runs_dir: RunsOption = Path("runs"), threads: int = 2) -> None:
    """Export the trained student in every way and print how they compare: size, speed, agreement, batch-independence."""
    from training.export.compare import compare_exports

    run = Run(read_config(config), Places(data=Path(), models=Path(), runs=runs_dir))
    typer.echo(compare_exports(trained(run), output=run.folder("compare-exports"), threads=threads))


@app.command("variety")
def variety_command(corpus: Annotated[Path, typer.Option(help="a folder of JSONL files")] = CORPUS_FOLDER) -> None:
    """Print how varied a corpus is: distinct trigrams, nearest neighbours, shares of forms, voices and labels."""
    from training.data.variety import measure_variety, read_corpus, render_variety

    typer.echo(render_variety(measure_variety(read_corpus(corpus))), nl=False)


if __name__ == "__main__":
    main()
