"""`python -m training <stage> --config FILE.toml`: the stages of a run, one by one or all in order."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from training.config import ConfigError, Places, read_config
from training.plan import STAGES
from training.stages import Run, Stage, run_stage

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

ConfigOption = Annotated[Path, typer.Option("--config", help="a TOML file; see training/configs")]
DataOption = Annotated[Path, typer.Option("--data-dir", help="what {data} in the configuration means")]
ModelsOption = Annotated[Path, typer.Option("--models-dir", help="what {models} in the configuration means")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="where runs write, a folder each")]
ForceOption = Annotated[bool, typer.Option("--force", help="do it again although its output holds")]


def main() -> None:
    """Run the command line; a configuration that can't be used is told in one message, exit code 2."""
    try:
        app()
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _add_command(stages: tuple[Stage, ...], *, name: str, help_text: str) -> None:
    def command(
        config: ConfigOption,
        data_dir: DataOption = Path("data"),
        models_dir: ModelsOption = Path("models"),
        runs_dir: RunsOption = Path("runs"),
        force: ForceOption = False,
    ) -> None:
        run = Run(read_config(config), Places(data=data_dir, models=models_dir, runs=runs_dir))
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


if __name__ == "__main__":
    main()
