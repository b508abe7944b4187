"""A whole run from English GoEmotions laid out as on the Hub: translated, fine-tuned, bundled, in the worker's hands."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest

from tests.support.tiny_training import (
    HUB_CONFIG,
    HUB_ROWS,
    ODD_ROWS,
    run_training,
    write_corpora,
    write_hub_data_set,
    write_models,
)
from tests.support.tiny_translator import make_tiny_translator, translation_of
from training.data.rows import Row, read_rows
from training.translation.marian import Answer, MarianTranslator
from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier

CHUNK = 60


@dataclass(frozen=True, slots=True)
class TranslatedRun:
    """A finished run whose translation was stopped and went on; what each of the two asked the model."""

    root: Path
    before: list[str]
    after: list[str]
    files_before: dict[Path, int]

    @property
    def folder(self) -> Path:
        return self.root / "runs" / "hub"


class _StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("translated")
    write_models(root / "models")
    write_corpora(root / "data")
    write_hub_data_set(root / "data" / "go_emotions")
    make_tiny_translator(root / "models" / "en-ru")
    (root / "hub.toml").write_text(HUB_CONFIG, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "hub-cache")
        yield root


def _record(patch: pytest.MonkeyPatch, *, stop_after: int | None = None) -> list[str]:
    """Let translation run, and stop before it asks for more than so many texts; the list fills with what is asked."""
    asked: list[str] = []
    translate = MarianTranslator.__call__

    def translate_or_stop(translator: MarianTranslator, texts: Sequence[str]) -> list[Answer]:
        if stop_after is not None and len(asked) >= stop_after:
            raise _StoppedError
        asked.extend(texts)
        return translate(translator, texts)

    patch.setattr(MarianTranslator, "__call__", translate_or_stop)
    return asked


@pytest.fixture(scope="module")
def run(root: Path) -> TranslatedRun:
    run_training(root, "download", config="hub")
    with pytest.MonkeyPatch.context() as patch:
        before = _record(patch, stop_after=CHUNK + 1)
        with pytest.raises(_StoppedError):
            run_training(root, "translate", config="hub")
    files_before = {path: path.stat().st_mtime_ns for path in (root / "runs" / "translation-cache").rglob("*.jsonl")}
    with pytest.MonkeyPatch.context() as patch:
        after = _record(patch)
        run_training(root, "all", config="hub")
    return TranslatedRun(root, before, after, files_before)


def _rows(run: TranslatedRun, stage: str, split: str) -> list[Row]:
    return read_rows(run.folder / stage / f"{split}.jsonl")


def test_what_comes_from_the_hub_is_described_by_a_card(run: TranslatedRun) -> None:
    card = json.loads((run.folder / "download" / "corpus_card.json").read_text("utf-8"))
    assert {split: each["rows"] for split, each in card["splits"].items()} == HUB_ROWS | {"train": 120 + len(ODD_ROWS)}
    assert card["splits"]["test"]["support"] == dict.fromkeys(GOEMOTIONS_LABELS, 2)
    assert card["origin"]["hub"] == "{data}/go_emotions"
    assert len(set(card["origin"]["fingerprints"].values())) == 3


def test_a_stopped_translation_goes_on_after_its_last_whole_chunk(run: TranslatedRun) -> None:
    assert len(run.files_before) == 2
    assert all(path.stat().st_mtime_ns == written for path, written in run.files_before.items())
    assert len(run.before) >= 2 * CHUNK
    assert not set(run.before) & set(run.after)
    distinct = {row.text for split in HUB_ROWS for row in _rows(run, "download", split)}
    assert len(distinct) - len(ODD_ROWS) <= len(set(run.before + run.after)) <= len(distinct) + 2 * len(ODD_ROWS)


def test_a_text_is_translated_once_across_runs(run: TranslatedRun) -> None:
    (run.root / "again.toml").write_text(HUB_CONFIG.replace('run = "hub"', 'run = "again"\nseed = 18'), "utf-8")
    run_training(run.root, "download", config="again")
    with pytest.MonkeyPatch.context() as patch:
        asked = _record(patch)
        run_training(run.root, "translate", config="again")
    assert asked == []
    for name in ("train.jsonl", "failed.jsonl"):
        again = run.root / "runs" / "again" / "translate" / name
        assert again.read_bytes() == (run.folder / "translate" / name).read_bytes()


def test_other_generation_settings_translate_anew(run: TranslatedRun) -> None:
    config = HUB_CONFIG.replace('run = "hub"', 'run = "greedy"').replace("beams = 2", "beams = 1")
    (run.root / "greedy.toml").write_text(config, "utf-8")
    run_training(run.root, "download", config="greedy")
    with pytest.MonkeyPatch.context() as patch:
        asked = _record(patch)
        run_training(run.root, "translate", config="greedy")
    assert set(asked) == set(run.before + run.after)


def test_rows_keep_their_labels_and_comments_in_russian(run: TranslatedRun) -> None:
    for split in HUB_ROWS:
        english = {row.comment_id: row for row in _rows(run, "download", split)}
        russian = [row for row in _rows(run, "translate", split) if row.comment_id not in ODD_ROWS]
        assert len(russian) == HUB_ROWS[split]
        assert all(row.labels == english[row.comment_id].labels for row in russian)
        assert {(row.source, row.language) for row in russian} == {("goemotions_ru", "ru")}
        right = sum(row.text == translation_of(english[row.comment_id].text) for row in russian)
        assert right / len(russian) > 0.8


def test_placeholders_and_emoji_come_through(run: TranslatedRun) -> None:
    translated = {row.comment_id: row.text for row in _rows(run, "translate", "train")}
    assert translated["named"] == "[NAME] люблю [RELIGION] опять"
    assert translated["with_emoji"] == "спасибо 😂 рада 😂"
    assert translated["copied"] == "[NAME] 😂"
    # The model loses the third stand-in, so what stands between the placeholders was translated apart.
    assert translated["in_pieces"] == "привет [NAME] курьер [RELIGION] заказ [NAME] ждать"
    card = json.loads((run.folder / "translate" / "translation_card.json").read_text("utf-8"))
    assert card["texts"]["in_pieces"] == 1


def test_failed_texts_are_reported_with_their_reason_and_never_trained_on(run: TranslatedRun) -> None:
    lines = (run.folder / "translate" / "failed.jsonl").read_text("utf-8").splitlines()
    reasons = {each["comment_id"]: each["reason"] for each in map(json.loads, lines)}
    assert reasons == {"untranslated": "untranslated", "looped": "repeated_tokens"}
    card = json.loads((run.folder / "translate" / "translation_card.json").read_text("utf-8"))
    assert card["splits"]["train"]["failed"] == {"untranslated": 1, "repeated_tokens": 1}
    assert card["splits"]["train"]["translated"] == card["splits"]["train"]["rows"] - 2
    trained_on = {row.comment_id for row in _rows(run, "prepare", "train")}
    assert "named" in trained_on
    assert not trained_on & set(reasons)


def test_the_translated_model_ends_in_the_worker_s_hands(run: TranslatedRun) -> None:
    classifier = OnnxClassifier(load_model_bundle(run.root / "bundles" / "hub"), threads=1)
    assert classifier.logits(classifier.tokenize(["спасибо мама", "верните деньги"])).shape == (2, len(GOEMOTIONS_LABELS))
    card = json.loads((run.folder / "prepare" / "corpus_card.json").read_text("utf-8"))
    assert card["splits"]["train"]["by_source"] == {"goemotions_ru": card["splits"]["train"]["rows"] - 10, "support": 10}
