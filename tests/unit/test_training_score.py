import json
import shutil
from pathlib import Path

import pytest

from training.config import ConfigError
from training.data.rows import Row, write_rows
from training.evaluation.escalations import DEFAULT_POLICY, read_policy
from training.score import score_bundle

ROWS = [
    Row("спасибо большое", ("gratitude",), "goemotions_ru"),
    Row("злюсь на вас", ("anger",), "goemotions_ru"),
    Row("мне грустно", ("joy",), "goemotions_ru"),
]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "prepare"
    folder.mkdir()
    for split in ("train", "validation", "test", "support_tuning", "support_reporting"):
        write_rows(folder / f"{split}.jsonl", ROWS)
    return folder


def _score(bundle: Path, prepared: Path):
    return score_bundle(bundle, prepared=prepared, chats=[], policy=read_policy(DEFAULT_POLICY), threads=1, seed=0)


def _with_metrics(tiny_bundle: Path, folder: Path, *, macro_f1: float) -> Path:
    bundle = shutil.copytree(tiny_bundle, folder)
    path = bundle / "manifest.json"
    tuned = {"tuned": {"macro_f1": macro_f1}}
    metrics = {"validation": tuned, "test": tuned, "corpora": {"support_reporting": {"macro_f1": macro_f1}}}
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "metrics": metrics}), "utf-8")
    return bundle


def test_a_bundle_that_scores_as_its_manifest_says_is_confirmed(tiny_bundle, prepared, tmp_path):
    scored = _score(_with_metrics(tiny_bundle, tmp_path / "bundle", macro_f1=2 / 28), prepared)
    assert scored.differing == ()
    assert "| test | 0.0714 | 0.0714 | the same |" in scored.tables


def test_every_part_whose_macro_f1_is_another_is_named(tiny_bundle, prepared, tmp_path):
    scored = _score(_with_metrics(tiny_bundle, tmp_path / "bundle", macro_f1=0.5), prepared)
    assert scored.differing == ("validation", "test", "support_reporting")
    assert "**differs**" in scored.tables


def test_a_bundle_without_metrics_is_scored_and_compared_with_nothing(tiny_bundle, prepared):
    scored = _score(tiny_bundle, prepared)
    assert scored.differing == ()
    assert "| gratitude | 1.00 | 1.00 | 1.00 | 1 |" in scored.tables


def test_a_folder_without_a_bundle_is_told_in_words(prepared, tmp_path):
    with pytest.raises(ConfigError, match="no model bundle"):
        _score(tmp_path / "nowhere", prepared)


def test_a_text_that_breaks_the_model_is_told_in_words(tiny_bundle, prepared):
    write_rows(prepared / "test.jsonl", [*ROWS, Row("отрава", ("anger",), "goemotions_ru")])
    with pytest.raises(ConfigError, match="fails on a text of test"):
        _score(tiny_bundle, prepared)
