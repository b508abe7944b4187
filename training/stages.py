"""The stages of a run, in order: what each reads, where it writes, and when its earlier output still holds.

A stage's folder has `stage.json` with the digest of its part of the configuration and of the stages it reads from; the
stage is skipped while that digest is the same. `{runs}` in a path names other runs' outputs.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import ConfigError, Places, TrainingConfig, digest_of

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
    goes into stage.json; `applies` tells whether this run has the stage at all.
    """

    name: str
    part: Callable[[TrainingConfig], Any]
    needs: Callable[[TrainingConfig], tuple[str, ...]]
    work: Callable[[Run], dict[str, Any]]
    applies: Callable[[TrainingConfig], bool] = lambda _config: True


def run_stage(stage: Stage, run: Run, *, force: bool = False) -> bool:
    """Do a stage unless its output holds; return whether it was done.

    A stage cut short keeps its checkpoints and goes on from them if the digest is the same; otherwise it starts clean.
    """
    folder = run.folder(stage.name)
    digest = _digest(stage, run)
    record = _read_record(folder)
    if record.get("digest") == digest and record.get("finished") and not force:
        return False
    if record and (record.get("digest") != digest or force):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_record(folder, {"digest": digest, "finished": False})
    outcome = stage.work(run)
    _write_record(folder, {"digest": digest, "finished": True, "outcome": outcome})
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
        needed[name] = _read_record(run.folder(name))["digest"]
    return digest_of({"part": stage.part(run.config), "needs": needed, "seed": run.config.seed})


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / STAGE_FILE
    record: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    (folder / STAGE_FILE).write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")
