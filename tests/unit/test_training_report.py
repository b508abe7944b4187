import json
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import CalibrationConfig, ConfigError, EvaluationConfig, ThresholdConfig
from training.data.chats import read_whole_chats
from training.data.rows import Row, write_rows
from training.evaluation.confusions import confused_pairs, strongest_correlations
from training.evaluation.errors import worst_mistakes
from training.evaluation.escalations import DEFAULT_POLICY, read_policy
from training.evaluation.page import render_page
from training.evaluation.predictions import save_predictions
from training.evaluation.report import REPORT_FILES, Scoreable, evaluate
from training.evaluation.saved_logits import read_scored
from training.evaluation.scores import Deciding
from training.evaluation.tables import cell, strength_line
from training.evaluation.tones import noise_scores, tone_scores, tones_of
from training.finetune.noise import NOISE_KINDS, noised
from training.thresholds.calibrate import calibrate, read_calibration
from training.thresholds.choose import choose, read_thresholds
from worker.core.labels import GOEMOTIONS_LABELS, tone_of

SPEAKS = {"злюсь": "anger", "спасибо": "gratitude", "грустно": "sadness", "почему": "curiosity", "стол": "neutral"}
CHATS = [
    {"chat_id": "furious", "escalates": True, "messages": [{"author": "client", "text": "злюсь"}] * 3},
    {"chat_id": "calm", "escalates": False, "messages": [{"author": "client", "text": "спасибо"}]},
    {"chat_id": "rude-operator", "escalates": False, "messages": [{"author": "operator", "text": "злюсь"}] * 3},
    {"chat_id": "missed", "escalates": True, "messages": [{"author": "client", "text": "стол"}]},
]
TRICKY = "почему <script>alert(1)</script> | *звёзды* и [ссылка](http://example.com)"


def _logits(texts: Sequence[str], _name: str) -> np.ndarray:
    """A model that hears its words only as they are written: capitals are Greek to it."""
    logits = np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(-4, 1, 28) for text in texts])
    for row, text in enumerate(texts):
        for word, label in SPEAKS.items():
            if word in text:
                logits[row, GOEMOTIONS_LABELS.index(label)] += 7
    return logits.astype(np.float32)


def _rows(split: str, count: int) -> list[Row]:
    words = list(SPEAKS)
    rows = [
        Row(f"{split} текст номер {number}, ещё {words[number % 5]}", (SPEAKS[words[number % 5]],), split, "ru", f"id{number}")
        for number in range(count)
    ]
    # The model can't hear these: a miss and, beside it, a false alarm each.
    rows[0] = Row(f"{split} промах почему", ("grief",), split, "ru", "odd0")
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    for name in ("prepare", "predict", "thresholds", "calibrate", "evaluate"):
        (root / name).mkdir()
    for split, count in (("train", 3), ("validation", 90), ("test", 80), ("support_tuning", 60), ("support_reporting", 50)):
        rows = _rows(split, count)
        if split == "support_tuning":
            rows[1] = Row(TRICKY, ("grief",), split)
        write_rows(root / "prepare" / f"{split}.jsonl", rows)
    chats = root / "whole_tuning.jsonl"
    chats.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in CHATS), "utf-8")
    save_predictions(_logits, prepared=root / "prepare", chats=[chats], output=root / "predict")
    choose(ThresholdConfig(folds=3), predicted=root / "predict", output=root / "thresholds", seed=0)
    calibrate(CalibrationConfig(folds=3), predicted=root / "predict", output=root / "calibrate", seed=0)
    scoreable = Scoreable(
        prepared=root / "prepare",
        predicted=root / "predict",
        chosen=root / "thresholds",
        calibrated=root / "calibrate",
        policy=read_policy(DEFAULT_POLICY),
    )
    evaluate(scoreable, output=root / "evaluate", seed=0)
    return root


def _read(run: Path, name: str) -> str:
    return (run / "evaluate" / name).read_text("utf-8")


def test_an_evaluation_leaves_a_report_a_page_figures_and_metrics_of_modest_size(run: Path) -> None:
    assert {path.name for path in (run / "evaluate").iterdir()} == set(REPORT_FILES)
    assert sum(path.stat().st_size for path in (run / "evaluate").glob("*.png")) < 1_000_000


def test_the_report_prints_texts_of_tuning_rows_only(run: Path) -> None:
    for name in ("report.md", "report.html", "metrics.json"):
        text = _read(run, name)
        for split in ("validation", "test", "support_reporting"):
            assert f"{split} промах" not in text
            assert f"{split} текст номер" not in text
    assert "support\\_tuning промах почему" in _read(run, "report.md")
    assert "support_tuning промах почему" in _read(run, "report.html")


def test_the_report_marks_the_optimistic_protocol_and_has_every_section(run: Path) -> None:
    report = _read(run, "report.md")
    assert "Optimistic protocol" in report
    for section in ("Support chats", "Tone", "Noise", "Whole chats", "Probabilities", "By label", "A look at the errors"):
        assert f"## {section}" in report
    assert "| **weighted average** |" in report


class _Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_fetches_nothing_and_knows_dark_and_light(run: Path) -> None:
    page, parser = _read(run, "report.html"), _Sources()
    parser.feed(page)
    assert len(parser.fetched) == 4
    assert all(each.startswith("data:image/png;base64,") for each in parser.fetched)
    assert {"table", "h1", "h2", "img"} <= parser.tags
    assert "color-scheme: light dark" in page
    assert "url(" not in page


def test_texts_are_shown_as_written_and_obeyed_nowhere(run: Path) -> None:
    page, parser = _read(run, "report.html"), _Sources()
    parser.feed(page)
    assert "script" not in parser.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | *звёзды* и [ссылка](http://example.com)" in page


@given(st.text(min_size=1))
def test_a_cell_holds_any_text_as_it_is_read(text: str) -> None:
    class Cells(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.cells: list[str] = []

        def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
            if tag == "td":
                self.cells.append("")

        def handle_data(self, data: str) -> None:
            if self.cells:
                self.cells[-1] += data

    words = " ".join(text.replace("\0", "").split())
    parser = Cells()
    parser.feed(render_page(f"| a | b |\n|---|---|\n| {cell(words)} | after |", {}))
    assert parser.cells[0].strip() == words
    assert parser.cells[1].strip() == "after"


def test_metrics_hold_calibration_noise_tones_and_escalations(run: Path) -> None:
    metrics = json.loads(_read(run, "metrics.json"))
    assert set(metrics["calibration"]) == {"test", "support_reporting"}
    assert set(metrics["calibration_fit"]["cross_validated"]) == {"validation", "support_tuning"}
    assert set(metrics["noise"]) == {"support_tuning", "support_reporting"}
    assert set(metrics["tones"]) == {"test", "support_tuning", "support_reporting"}
    assert metrics["escalations"]["whole_tuning"]["missed"] == ["missed"]
    assert metrics["escalations"]["whole_tuning"]["alarmed"] == []
    assert metrics["escalations"]["whole_tuning"]["found"] == 0.5


def test_calibration_is_measured_from_plain_to_published_and_lowers_the_error_on_unseen_parts(run: Path) -> None:
    metrics = json.loads(_read(run, "metrics.json"))
    for part, each in metrics["calibration"].items():
        plain = read_scored(run / "predict", part)
        assert each["before"]["brier"] == round(float(((plain.probabilities - plain.labels) ** 2).mean()), 4)
        assert each["after"]["brier"] < each["before"]["brier"]


def test_published_thresholds_are_the_workers(run: Path) -> None:
    by_label = json.loads(_read(run, "metrics.json"))["test_by_label"]
    thresholds, calibration = read_thresholds(run / "thresholds"), read_calibration(run / "calibrate")
    scorer = Deciding(thresholds, calibration, read_policy(DEFAULT_POLICY)).scorer()
    published = {each.label: each.threshold for each in scorer.score(np.full(28, 20.0)).emotions}
    assert {label: each["published_threshold"] for label, each in by_label.items()} == published
    assert {label: each["threshold"] for label, each in by_label.items()} != published


def test_noise_costs_a_tone_where_the_model_is_deaf_to_it(run: Path) -> None:
    noise = noise_scores(run / "predict", "support_tuning", np.full(28, 0.5))
    assert noise["caps"]["same_tone"] < 0.5
    assert noise["no_punctuation"]["same_tone"] > 0.9
    assert noise["no_yo"]["changed_texts"] < 1.0


def test_what_a_run_has_no_data_for_is_left_out(tmp_path: Path) -> None:
    for name in ("prepare", "predict", "thresholds", "calibrate", "evaluate"):
        (tmp_path / name).mkdir()
    for split in ("validation", "test"):
        write_rows(tmp_path / "prepare" / f"{split}.jsonl", _rows(split, 40))
    save_predictions(_logits, prepared=tmp_path / "prepare", chats=[], output=tmp_path / "predict")
    choose(ThresholdConfig(folds=2), predicted=tmp_path / "predict", output=tmp_path / "thresholds", seed=0)
    calibrate(CalibrationConfig(method="none"), predicted=tmp_path / "predict", output=tmp_path / "calibrate", seed=0)
    folders = {"prepared": "prepare", "predicted": "predict", "chosen": "thresholds", "calibrated": "calibrate"}
    scoreable = Scoreable(**{name: tmp_path / folder for name, folder in folders.items()}, policy=read_policy(DEFAULT_POLICY))
    evaluate(scoreable, output=tmp_path / "evaluate", seed=0)
    report = (tmp_path / "evaluate" / "report.md").read_text("utf-8")
    for section in ("Support chats", "Noise", "Whole chats", "A look at the errors"):
        assert f"## {section}" not in report
    assert "Nothing is calibrated here" in report
    assert "is published is calibrated" not in report


def _cells(*rows: tuple[str, ...]) -> np.ndarray:
    return np.array([[label in row for label in GOEMOTIONS_LABELS] for row in rows])


def test_tones_are_the_workers() -> None:
    rows = [("anger",), ("joy",), ("joy", "grief"), ("surprise",), ("neutral",), ()]
    assert tones_of(_cells(*rows)).tolist() == [tone_of(row) for row in rows]


def test_negative_messages_are_those_with_any_negative_label() -> None:
    labels = _cells(("anger",), ("joy", "grief"), ("joy",), ("neutral",), ("sadness",))
    given = _cells(("anger",), ("joy",), ("joy",), ("fear",), ("sadness", "love"))
    scores = tone_scores(labels, given)
    assert (scores["negative_rows"], scores["precision"], scores["recall"]) == (3, 0.6667, 0.6667)
    assert scores["confusion"]["mixed"]["positive"] == 1
    assert scores["confusion"]["negative"] == {"negative": 1, "positive": 0, "mixed": 1, "ambiguous": 0, "neutral": 0}
    assert scores["same_tone"] == 0.4


def test_confused_pairs_are_labels_missed_where_another_was_given() -> None:
    labels = _cells(("anger",), ("anger",), ("anger",), ("joy", "love"), ("fear",))
    given = _cells(("annoyance",), ("annoyance",), ("anger", "annoyance"), ("joy", "pride"), ("neutral",))
    pairs = confused_pairs(labels, given, count=5, with_neutral=False)
    assert pairs[0] == {"label": "anger", "given": "annoyance", "rows": 2, "share": 0.6667}
    assert {(each["label"], each["given"]) for each in pairs} == {("anger", "annoyance"), ("love", "pride")}
    assert [each["label"] for each in confused_pairs(labels, given, count=5, with_neutral=True)] == ["fear"]


def test_correlations_name_what_goes_together_and_what_does_not() -> None:
    chance = np.random.default_rng(0)
    probabilities = np.full((200, 28), 0.1)
    anger, annoyance, joy = (GOEMOTIONS_LABELS.index(label) for label in ("anger", "annoyance", "joy"))
    probabilities[:, anger] = chance.random(200)
    probabilities[:, annoyance] = probabilities[:, anger] * 0.5
    probabilities[:, joy] = 1 - probabilities[:, anger]
    found = strongest_correlations(probabilities, count=2)
    assert found["together"] == [("anger", "annoyance", 1.0)]
    assert ("anger", "joy", -1.0) in found["apart"]


def test_the_worst_mistakes_come_first_each_row_once_and_no_label_too_often() -> None:
    rows = [Row(f"t{number}", ("anger",), "support") for number in range(4)]
    labels = _cells(("anger",), ("anger",), ("anger",), ("joy",)).astype(np.float32)
    probabilities = np.full((4, 28), 0.01)
    anger, joy, love = (GOEMOTIONS_LABELS.index(label) for label in ("anger", "joy", "love"))
    probabilities[:, anger] = (0.2, 0.05, 0.1, 0.0)
    probabilities[3, [joy, love]] = (0.9, 0.95)
    found = worst_mistakes(rows, probabilities, labels, thresholds=np.full(28, 0.5), count=10)
    assert [each.row.text for each in found.misses] == ["t1", "t2"]
    assert [(each.row.text, each.label, each.given) for each in found.false_alarms] == [("t3", "love", ("joy", "love"))]


def test_labels_are_called_strong_or_weak_by_the_mean() -> None:
    by_label = {label: {"f1": 0.2, "support": 100} for label in GOEMOTIONS_LABELS}
    by_label["joy"] = {"f1": 0.9, "support": 5}
    line = strength_line(by_label)
    assert "mean F1 of 0.225: joy 0.90. **Weak**" in line
    assert "Too few test rows to tell (under 30): joy." in line


@given(st.text(), st.sampled_from(NOISE_KINDS), st.integers(0, 1000))
def test_noise_of_a_kind_repeats_with_its_seed_and_leaves_no_text_empty(text: str, kind: str, seed: int) -> None:
    assert noised(text, kind, seed=seed) == noised(text, kind, seed=seed)
    assert bool(noised(text, kind, seed=seed)) == bool(text)


def test_each_kind_of_noise_does_what_its_name_says() -> None:
    text = "Ещё раз: заказ 12.5 кг, ждём с 14:30 — где же он?!"
    assert noised(text, "caps", seed=0) == text.upper()
    assert noised(text, "no_yo", seed=0) == text.replace("ё", "е")
    assert noised(text, "no_punctuation", seed=0) == "Ещё раз заказ 12.5 кг ждём с 14:30 где же он"
    for seed in range(50):
        spoiled = noised(text, "typos", seed=seed)
        assert spoiled != text
        changed = [(ours, theirs) for ours, theirs in zip(text.split(), spoiled.split(), strict=True) if ours != theirs]
        assert len(changed) in (1, 2)


def test_unusable_files_say_what_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.policy"):
        read_policy(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("weights = 1", "utf-8")
    with pytest.raises(ConfigError, match="weights"):
        read_policy(tmp_path / "bad.toml")
    with pytest.raises(ConfigError, match=r"evaluation\.chats"):
        read_whole_chats(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"chat_id": "a"}', "utf-8")
    with pytest.raises(ConfigError, match="whole chats"):
        read_whole_chats(tmp_path / "bad.jsonl")
    with pytest.raises(ValueError, match="rename the files that share a name"):
        EvaluationConfig(chats=("{data}/tuning.jsonl", "{corpus}/chats/tuning.jsonl"))
