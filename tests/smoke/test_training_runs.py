"""A whole run on a model and corpora small enough for seconds: every stage, then the bundle in the worker's own hands."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from typer.testing import CliRunner

from tests.support.tiny_training import DISTILLED_CONFIG, PLAIN_CONFIG, run_training, write_corpora, write_models
from training.__main__ import app
from training.config import ConfigError
from training.evaluation.saved_logits import read_scored
from training.export.compare import WAYS
from training.export.onnx_export import load_for_export
from training.finetune.answers import answer_keys, known_answers, read_answers
from training.finetune.encoding import pad
from training.finetune.teacher import load_teacher
from worker.core.failures import ModelBundleError
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import probabilities_from_logits
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    write_models(root / "models")
    write_corpora(root / "data")
    (root / "tiny.toml").write_text(DISTILLED_CONFIG, "utf-8")
    (root / "plain.toml").write_text(PLAIN_CONFIG, "utf-8")
    return root


def _run(root: Path, *words: str, config: str = "tiny") -> str:
    return run_training(root, *words, config=config)


@pytest.fixture(scope="module")
def finished(folders: Path) -> Path:
    _run(folders, "all")
    return folders / "runs" / "tiny"


def test_a_distilled_run_leaves_a_student_with_all_labels(finished: Path) -> None:
    config = json.loads((finished / "distill" / "model" / "config.json").read_text("utf-8"))
    assert tuple(config["id2label"].values()) == GOEMOTIONS_LABELS
    assert config["max_position_embeddings"] == 48


def test_a_distilled_student_has_a_vocabulary_of_its_own(finished: Path, folders: Path) -> None:
    config = json.loads((finished / "distill" / "model" / "config.json").read_text("utf-8"))
    tokenizers = [folder / "tokenizer.json" for folder in (finished / "distill" / "model", folders / "models" / "donor")]
    own, donor = (Tokenizer.from_file(str(path)) for path in tokenizers)
    assert own.get_vocab_size() == config["vocab_size"] == 90 < donor.get_vocab_size()
    assert (folders / "bundles" / "tiny" / "tokenizer.json").read_bytes() == tokenizers[0].read_bytes()


def test_stages_whose_output_holds_are_skipped(finished: Path, folders: Path) -> None:
    lines = [line for line in _run(folders, "all").splitlines() if ": not part of this" not in line]
    assert len(lines) >= 9
    assert all(": unchanged" in line for line in lines)


def test_the_bundle_loads_and_gives_torch_s_logits(finished: Path, folders: Path) -> None:
    bundle = load_model_bundle(folders / "bundles" / "tiny")
    classifier = OnnxClassifier(bundle, threads=1)
    texts = ["спасибо мама", "ужас верните деньги опять"]
    tokenized = classifier.tokenize(texts)
    by_onnx = probabilities_from_logits(classifier.logits(tokenized))
    model = load_for_export(finished / "distill" / "model")
    feeds = pad([each.token_ids for each in tokenized], pad_id=1)
    with torch.no_grad():
        by_torch = probabilities_from_logits(model(**feeds).logits.numpy())
    assert np.abs(by_onnx - by_torch).max() < 0.01


def test_the_manifest_names_every_corpus_and_the_thresholds_of_the_run(finished: Path, folders: Path) -> None:
    manifest = load_model_bundle(folders / "bundles" / "tiny").manifest
    chosen = json.loads((finished / "thresholds" / "thresholds.json").read_text("utf-8"))
    assert manifest.thresholds == chosen["thresholds"]
    assert [(each["name"], each["training_rows"]) for each in manifest.data] == [("support", 10)]


def test_the_manifest_has_the_shares_of_the_labels_that_the_model_gives_to_support_messages(
    finished: Path, folders: Path
) -> None:
    bundle = load_model_bundle(folders / "bundles" / "tiny")
    given = read_scored(finished / "predict", "support_tuning").probabilities >= np.array(bundle.thresholds)
    baseline = bundle.manifest.baseline
    assert baseline is not None
    assert (baseline.source, baseline.messages) == ("support_tuning", len(given))
    assert list(baseline.shares.values()) == pytest.approx(given.mean(0).tolist(), abs=1e-6)
    assert baseline.unlabelled == pytest.approx(np.mean(~given.any(1)), abs=1e-6)


def test_the_bundle_publishes_calibrated_probabilities_and_decides_by_plain_ones(finished: Path, folders: Path) -> None:
    bundle = load_model_bundle(folders / "bundles" / "tiny")
    fitted = json.loads((finished / "calibrate" / "calibration.json").read_text("utf-8"))["labels"]
    assert bundle.manifest.model_dump()["calibration"] == fitted
    classifier, scorer = OnnxClassifier(bundle, threads=1), bundle.scorer({"anger": 1.0})
    logits = classifier.logits(classifier.tokenize(["спасибо мама", "ужас верните деньги опять"]))
    decided = probabilities_from_logits(logits) >= np.array(bundle.thresholds)
    for row, over in zip(logits, decided, strict=True):
        assert {each.label for each in scorer.score(row).emotions} == set(np.array(GOEMOTIONS_LABELS)[over])


def test_the_bundle_brings_its_report(finished: Path, folders: Path) -> None:
    del finished
    report = folders / "bundles" / "tiny" / "report"
    assert {path.name for path in report.iterdir()} == {
        "report.md",
        "report.html",
        "metrics.json",
        "labels.png",
        "thresholds.png",
        "reliability.png",
        "correlation.png",
    }
    assert "## Whole chats" in (report / "report.md").read_text("utf-8")
    assert "(report/report.html)" in (folders / "bundles" / "tiny" / "README.md").read_text("utf-8")


def test_scoring_the_bundle_gives_its_manifest_s_figures(finished: Path, folders: Path) -> None:
    del finished
    words = [
        "score",
        "--bundle",
        folders / "bundles" / "tiny",
        "--config",
        folders / "tiny.toml",
        "--data-dir",
        folders / "data",
    ]
    words += ["--models-dir", folders / "models", "--runs-dir", folders / "runs", "--threads", "1"]
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "| support_reporting | " in result.output


def test_an_altered_bundle_is_refused(finished: Path, folders: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders / "bundles" / "tiny", copy)
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelBundleError, match="altered"):
        load_model_bundle(copy)


def test_the_card_shows_scores_examples_and_limits(finished: Path, folders: Path) -> None:
    card = (folders / "bundles" / "tiny" / "README.md").read_text("utf-8")
    for expected in ("# tiny", "macro-F1", "мама мыла раму", "Intended use and limits", "support_reporting"):
        assert expected in card


def test_the_export_agrees_with_torch_whatever_is_batched(finished: Path, folders: Path) -> None:
    del finished
    _run(folders, "all")
    parity = json.loads((folders / "runs" / "tiny" / "export" / "parity.json").read_text("utf-8"))
    assert parity["batch_dependence"] <= 0.001
    assert parity["cell_agreement"] >= 0.995
    assert parity["float_difference"] <= 1e-4


def test_every_way_to_export_is_compared(finished: Path, folders: Path) -> None:
    del finished
    words = ["compare-exports", "--config", str(folders / "tiny.toml"), "--runs-dir", str(folders / "runs"), "--threads", "1"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    for way in ("float32", *WAYS):
        assert f"| {way} | " in result.output


def test_tuning_a_teacher_leaves_its_word_embeddings_as_they_were(finished: Path, folders: Path) -> None:
    before = load_teacher(folders / "models" / "teacher").encoder.embeddings.word_embeddings.weight
    tuned = load_teacher(finished / "train-teacher" / "teacher")
    assert torch.equal(before, tuned.encoder.embeddings.word_embeddings.weight)
    assert not torch.equal(tuned.head.weight, load_teacher(folders / "models" / "teacher").head.weight)


def test_a_teacher_is_not_asked_twice(finished: Path, folders: Path) -> None:
    keys = read_answers(finished / "teach").keys
    assert len(known_answers(keys, [finished / "teach"])) == len(keys)
    assert not set(keys.tolist()) & set(answer_keys(folders / "models" / "teacher", ["мама"]).tolist())


def test_plain_fine_tuning_starts_from_any_checkpoint(folders: Path) -> None:
    for stage in ("prepare", "train", "predict"):
        _run(folders, stage, config="plain")
    with np.load(folders / "runs" / "plain" / "predict" / "test.npz") as saved:
        assert saved["logits"].shape == saved["labels"].shape == (56, 28)


def test_a_stage_before_its_turn_says_what_to_run(folders: Path) -> None:
    (folders / "early.toml").write_text(PLAIN_CONFIG.replace('run = "plain"', 'run = "early"'), "utf-8")
    with pytest.raises(ConfigError, match="python -m training predict"):
        _run(folders, "thresholds", config="early")
