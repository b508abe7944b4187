"""The stages of a run, in order: what each reads, where it writes, and when its earlier output still holds.

A stage's folder has `stage.json` with the digest of its part of the configuration and of the stages it reads from, and one of
the files that it reads from outside its run; the stage is skipped while both are the same. `{runs}` in a path names other
runs' outputs.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import ConfigError, Places, TrainingConfig, digest_of
from worker.inference.model_bundle import file_digest

STAGE_FILE = "stage.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A configuration, its folders, and the threads that exports are measured with."""

    config: TrainingConfig
    places: Places
    threads: int = 2

    def folder(self, stage: str) -> Path:
        return self.places.runs / self.config.run / stage


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a run.

    `part` returns what of the configuration it depends on, `needs` the stages it reads, `work` does it and returns what
    goes into stage.json; `applies` tells whether this run has the stage at all; `reads` returns the files and folders from
    outside the run that it reads, of which those that aren't there count for nothing.
    """

    name: str
    part: Callable[[TrainingConfig], Any]
    needs: Callable[[TrainingConfig], tuple[str, ...]]
    work: Callable[[Run], dict[str, Any]]
    applies: Callable[[TrainingConfig], bool] = lambda _config: True
    reads: Callable[[Run], Iterable[Path]] = lambda _run: ()


def run_stage(stage: Stage, run: Run, *, force: bool = False) -> bool:
    """Do a stage unless its output holds; return whether it was done.

    A stage cut short keeps its checkpoints and goes on from them if the digests are the same; otherwise it starts clean.
    """
    folder = run.folder(stage.name)
    digest, inputs = _digest(stage, run), _digest_of_inputs(stage.reads(run))
    record = _read_record(folder)
    # Records from before inputs were told apart have none, and hold.
    is_same = record.get("digest") == digest and record.get("inputs", inputs) == inputs
    if is_same and record.get("finished") and not force:
        return False
    if folder.exists() and (force or not is_same):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_from = {"digest": digest, "inputs": inputs}
    _write_record(folder, {**made_from, "finished": False})
    outcome = stage.work(run)
    _write_record(folder, {**made_from, "finished": True, "outcome": outcome})
    return True


def stage_outcome(run: Run, stage: str) -> dict[str, Any]:
    """Return what a finished stage reported; raises `ConfigError` where it has not finished."""
    record = _read_record(run.folder(stage))
    if not record.get("finished"):
        raise ConfigError(f"stage {stage!r} has not finished; run `python -m training {stage}` with this --config first")
    outcome: dict[str, Any] = record["outcome"]
    return outcome


def _digest(stage: Stage, run: Run) -> str:
    needed = {}
    for name in stage.needs(run.config):
        stage_outcome(run, name)
        record = _read_record(run.folder(name))
        needed[name] = record["digest"] + record.get("inputs", "")
    return digest_of({"part": stage.part(run.config), "needs": needed, "seed": run.config.seed})


def _digest_of_inputs(paths: Iterable[Path]) -> str:
    """Return a digest of the files' contents, those of folders included; nothing where there are none."""
    digests = [[file_digest(each) for each in _files_in(path)] for path in paths]
    return digest_of(digests) if any(digests) else ""


def _files_in(path: Path) -> list[Path]:
    """Return a file itself, or a folder's files; where those are a stage's, without its record."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [each for each in found if each.is_file() and each.name != STAGE_FILE]


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / STAGE_FILE
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write stage.json whole: a run stopped here leaves the earlier one."""
    unfinished = folder / f"{STAGE_FILE}.unfinished"
    unfinished.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")
    unfinished.replace(folder / STAGE_FILE)
