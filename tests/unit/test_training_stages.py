import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.config import Places, TrainingConfig
from training.plan import STAGES
from training.stages import STAGE_FILE, Run, Stage, run_stage


class _StoppedError(Exception):
    pass


@pytest.fixture
def run(tmp_path: Path) -> Run:
    places = Places(data=tmp_path / "data", models=tmp_path / "models", runs=tmp_path / "runs")
    places.data.mkdir()
    return Run(_config(), places)


def _config(**tables: Any) -> TrainingConfig:
    train = {"optimiser": {"epochs": 1, "learning_rate": 1e-3}}
    return TrainingConfig.model_validate({"run": "r", "train": train, "bundle": {"base": "nothing"}, **tables})


def _write(run: Run) -> dict[str, Any]:
    (run.folder("first") / "output").touch()
    return {}


def _stop(run: Run) -> dict[str, Any]:
    (run.folder("first") / "checkpoint").touch()
    raise _StoppedError


def _stage(work: Callable[[Run], dict[str, Any]] = _write, *, part: str = "a") -> Stage:
    return Stage(
        "first", lambda _: part, lambda _: (), work, reads=lambda run: [run.places.data, run.places.data / "absent.tsv"]
    )


SECOND = Stage("second", lambda _: None, lambda _: ("first",), lambda _: {})


def test_a_stage_is_done_once_and_again_where_it_is_forced(run: Run) -> None:
    assert [run_stage(_stage(), run, force=force) for force in (False, False, True)] == [True, False, True]


def test_a_stage_and_those_that_need_it_are_done_again_after_another_setting(run: Run) -> None:
    for part, expected in (("a", True), ("b", True), ("b", False)):
        assert [run_stage(stage, run) for stage in (_stage(part=part), SECOND)] == [expected] * 2


def test_a_stage_and_those_that_need_it_are_done_again_after_another_file(run: Run) -> None:
    file = run.places.data / "folder" / "rows.jsonl"
    file.parent.mkdir()
    for written, expected in (("1", True), ("1", False), ("2", True)):
        file.write_text(written, "utf-8")
        assert [run_stage(stage, run) for stage in (_stage(), SECOND)] == [expected] * 2


def test_the_record_of_a_stage_that_is_read_is_no_input(run: Run) -> None:
    for record, expected in (("{}", True), ('{"finished": true}', False)):
        (run.places.data / STAGE_FILE).write_text(record, "utf-8")
        assert run_stage(_stage(), run) == expected


def test_stages_recorded_without_their_inputs_hold(run: Run) -> None:
    for stage in (_stage(), SECOND):
        run_stage(stage, run)
        path = run.folder(stage.name) / STAGE_FILE
        record = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({name: value for name, value in record.items() if name != "inputs"}), "utf-8")
    (run.places.data / "rows.jsonl").write_text("new", "utf-8")
    assert not run_stage(_stage(), run)
    assert not run_stage(SECOND, run)


@pytest.mark.parametrize(("part", "goes_on"), [("a", True), ("b", False)])
def test_a_stage_cut_short_goes_on_only_with_what_it_began_with(run: Run, part: str, goes_on: bool) -> None:
    with pytest.raises(_StoppedError):
        run_stage(_stage(_stop), run)
    assert run_stage(_stage(part=part), run)
    assert (run.folder("first") / "checkpoint").exists() == goes_on


def test_what_a_stopped_removal_left_is_never_gone_on_from(run: Run) -> None:
    with pytest.raises(_StoppedError):
        run_stage(_stage(_stop), run)
    (run.folder("first") / STAGE_FILE).unlink()
    run_stage(_stage(), run)
    assert not (run.folder("first") / "checkpoint").exists()


TEACHER = {"folder": "{models}/own", "for_goemotions": "{models}/other", "align_to": "{runs}/a", "reuse": ["{runs}/b"]}
ENGLISH = {"train": "{data}/1.csv", "validation": "{data}/2.csv", "test": "{data}/3.csv"}
CORPORA = [{"name": "support", "glob": "{data}/*.jsonl", "licence": "MIT", "origin": "a test"}]


@pytest.mark.parametrize(
    ("stage", "tables", "expected"),
    [
        ("download", {"data": {"english": ENGLISH}}, "data/1.csv data/2.csv data/3.csv"),
        ("download", {"data": {"english": {"hub": "{data}/hub"}}}, "data/hub"),
        ("translate", {"translation": {"model": "{models}/en-ru"}}, "models/en-ru"),
        ("prepare", {"data": {"english": ENGLISH, "corpora": CORPORA}}, "data/a.jsonl data/b.jsonl"),
        (
            "prepare",
            {"data": {"corpora": CORPORA, "english_fill": False}},
            "data/ru_train.tsv data/ru_goemotions_validation.csv data/ru_goemotions_test.csv data/a.jsonl data/b.jsonl",
        ),
        ("train-teacher", {"teacher": TEACHER}, "models/own"),
        ("teach", {"teacher": TEACHER}, "models/own models/other runs/a runs/b"),
        ("train", {"model": {"base": "{models}/base"}}, "models/base"),
        ("distill", {"model": {"embeddings_from": "{models}/donor"}}, "models/donor"),
        ("distill", {"model": {"embeddings_from": "{models}/donor", "start_from": "{runs}/x"}}, "runs/x"),
        ("predict", {"evaluation": {"chats": ["{data}/chats.jsonl"]}}, "data/chats.jsonl"),
    ],
)
def test_stages_know_the_files_they_read(run: Run, stage: str, tables: dict[str, Any], expected: str) -> None:
    for name in ("b", "a"):
        (run.places.data / f"{name}.jsonl").touch()
    run = replace(run, config=_config(**tables))
    found = next(each for each in STAGES if each.name == stage).reads(run)
    assert [str(path.relative_to(run.places.data.parent)) for path in found] == expected.split()
