"""The stage `evaluate`'s output: metrics.json, report.md, the same as a page, and the pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.rows import read_rows
from training.evaluation.errors import Mistakes, worst_mistakes
from training.evaluation.page import render_page
from training.evaluation.plots import (
    CORRELATION_PNG,
    LABELS_PNG,
    PICTURES,
    RELIABILITY_PNG,
    THRESHOLDS_PNG,
    plot_correlation,
    plot_labels,
    plot_reliability,
    plot_thresholds,
)
from training.evaluation.saved_logits import read_calibrated, read_scored
from training.evaluation.scores import Deciding, corpus_parts, score_run
from training.evaluation.tables import (
    CHAT_WORDS,
    NOISE_WORDS,
    TONE_WORDS,
    calibration_table,
    calibration_words,
    confused_table,
    corpora_table,
    correlation_line,
    escalation_table,
    label_table,
    mistakes_table,
    noise_table,
    split_table,
    strength_line,
    threshold_line,
    tone_confusion_table,
    tone_table,
    union_line,
)
from training.thresholds.calibrate import FILE_NAME as CALIBRATION_NAME
from training.thresholds.calibrate import read_calibration
from training.thresholds.choose import FILE_NAME as THRESHOLDS_NAME
from training.thresholds.choose import read_thresholds
from worker.core.escalation import EscalationPolicy

METRICS_NAME, REPORT_NAME, PAGE_NAME = "metrics.json", "report.md", "report.html"
REPORT_FILES = (METRICS_NAME, REPORT_NAME, PAGE_NAME, *PICTURES)
_MISTAKES = 10


@dataclass(frozen=True, slots=True)
class Scoreable:
    """The folders of a run that an evaluation reads, and the escalation policy."""

    prepared: Path
    predicted: Path
    chosen: Path
    calibrated: Path
    policy: EscalationPolicy


def evaluate(run: Scoreable, *, output: Path, seed: int) -> dict[str, Any]:
    """Score a run and write its report; return the scores."""
    deciding = Deciding(read_thresholds(run.chosen), read_calibration(run.calibrated), run.policy)
    scores = score_run(run.predicted, deciding, seed=seed)
    scores["thresholds"] = _read_json(run.chosen / THRESHOLDS_NAME)
    scores["calibration_fit"] = _fit_of(_read_json(run.calibrated / CALIBRATION_NAME))
    (output / METRICS_NAME).write_text(json.dumps(scores, ensure_ascii=False, indent=1) + "\n", "utf-8")
    _draw(run, deciding, scores, output=output)
    report = render_report(scores, _mistakes(run, deciding))
    (output / REPORT_NAME).write_text(report, "utf-8")
    pictures = {name: (output / name).read_bytes() for name in PICTURES}
    (output / PAGE_NAME).write_text(render_page(report, pictures), "utf-8")
    return {name: scores[name] for name in ("test", "corpora", "calibration")}


def render_report(scores: dict[str, Any], mistakes: dict[str, Mistakes]) -> str:
    """Return the report in Markdown; what a run has no data for is left out."""
    parts = [
        "# Evaluation",
        "Thresholds and calibration were chosen on validation and on the corpora's tuning parts; test and reporting parts were "
        "only scored.",
        split_table(scores),
        union_line(scores),
        threshold_line(scores["thresholds"]),
        *_chat_sections(scores),
        "## Probabilities",
        calibration_words(is_calibrated=scores["calibration_fit"]["method"] != "none"),
        calibration_table(scores),
        f"![Reliability before and after calibration]({RELIABILITY_PNG})",
        "## By label (test)",
        strength_line(scores["test_by_label"]),
        f"![F1 by label]({LABELS_PNG})",
        label_table(scores["test_by_label"], scores["test_averages"]),
        f"![Precision, recall and F1 against the threshold]({THRESHOLDS_PNG})",
        "## What is taken for what (test)",
        "A row counts where it has the first label and was not given it, and was given the second without having it.",
        confused_table(scores["details"]["confused"]["emotions"]),
        "And with neutral:",
        confused_table(scores["details"]["confused"]["neutral"]),
        correlation_line(scores["details"]["correlated"]),
        f"![Correlation of predicted emotions]({CORRELATION_PNG})",
        *_mistake_sections(mistakes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _chat_sections(scores: dict[str, Any]) -> list[str]:
    tones = scores["tones"]
    sections = ["## Support chats", corpora_table(scores["corpora"])] if scores["corpora"] else []
    sections += ["## Tone", TONE_WORDS, tone_table(tones)]
    for part, each in tones.items():
        if not part.endswith("_tuning"):
            sections += [f"Tones in {part}:", tone_confusion_table(each)]
    if scores["noise"]:
        sections += ["## Noise", NOISE_WORDS, noise_table(scores["noise"])]
    if scores["escalations"]:
        sections += ["## Whole chats", CHAT_WORDS, escalation_table(scores["escalations"])]
    return sections


def _mistake_sections(mistakes: dict[str, Mistakes]) -> list[str]:
    if not mistakes:
        return []
    sections = ["## A look at the errors", "The worst first, by how far the logit lies on the wrong side of its threshold."]
    for part, each in mistakes.items():
        sections += [f"Missed in {part}:", mistakes_table(each.misses) or "none"]
        sections += [f"False alarms in {part}:", mistakes_table(each.false_alarms) or "none"]
    return sections


def _mistakes(run: Scoreable, deciding: Deciding) -> dict[str, Mistakes]:
    """Return the tuning parts' worst mistakes; reporting stays unread, and GoEmotions' texts are not ours to print."""
    found = {}
    for part in corpus_parts(run.predicted):
        if part.endswith("_tuning"):
            scored = read_scored(run.predicted, part)
            rows = read_rows(run.prepared / f"{part}.jsonl")
            found[part] = worst_mistakes(
                rows, scored.probabilities, scored.labels, thresholds=deciding.thresholds, count=_MISTAKES
            )
    return found


def _draw(run: Scoreable, deciding: Deciding, scores: dict[str, Any], *, output: Path) -> None:
    plot_correlation(read_scored(run.predicted, "test").probabilities, output / CORRELATION_PNG)
    plot_labels(scores["test_by_label"], output / LABELS_PNG)
    plot_thresholds(read_scored(run.predicted, "validation"), deciding.thresholds, output / THRESHOLDS_PNG)
    unseen = list(scores["calibration"])
    plot_reliability(
        {part: read_scored(run.predicted, part) for part in unseen},
        {part: read_calibrated(run.predicted, part, deciding.calibration) for part in unseen},
        output / RELIABILITY_PNG,
    )


def _fit_of(calibration: dict[str, Any]) -> dict[str, Any]:
    errors = calibration["cross_validated"]
    return {
        "method": calibration["method"],
        "cross_validated": {
            part: {when: {name: scores[name] for name in ("calibration_error", "brier")} for when, scores in each.items()}
            for part, each in errors.items()
        },
    }


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values
