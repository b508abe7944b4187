"""The stage `evaluate`'s output: metrics.json, report.md and the pictures."""

import json
from pathlib import Path
from typing import Any

from training.evaluation.plots import CORRELATION_PNG, LABELS_PNG, plot_correlation, plot_labels
from training.evaluation.saved_logits import read_scored
from training.evaluation.scores import score_run
from training.thresholds.choose import FILE_NAME, read_thresholds

METRICS_NAME, REPORT_NAME = "metrics.json", "report.md"


def evaluate(*, predicted: Path, chosen: Path, output: Path, seed: int) -> dict[str, Any]:
    """Score a run and write its report; return the scores."""
    scores = score_run(predicted=predicted, thresholds=read_thresholds(chosen), seed=seed)
    scores["thresholds"] = json.loads((chosen / FILE_NAME).read_text("utf-8"))
    (output / METRICS_NAME).write_text(json.dumps(scores, indent=1) + "\n", "utf-8")
    plot_correlation(read_scored(predicted, "test").probabilities, output / CORRELATION_PNG)
    plot_labels(scores["test_by_label"], output / LABELS_PNG)
    (output / REPORT_NAME).write_text(render_report(scores), "utf-8")
    return {"test": scores["test"], "corpora": scores["corpora"]}


def render_report(scores: dict[str, Any]) -> str:
    """Return the report in Markdown."""
    parts = [
        "# Evaluation",
        "Thresholds were chosen on validation alone, test was only scored.",
        split_table(scores),
        union_line(scores),
        threshold_line(scores["thresholds"]),
        "## Support chats",
        corpora_table(scores["corpora"]),
        "## By label (test)",
        label_table(scores["test_by_label"]),
        f"![F1 by label]({LABELS_PNG})",
        f"![Correlation of predicted emotions]({CORRELATION_PNG})",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def split_table(scores: dict[str, Any]) -> str:
    """Return the table of macro, micro and weighted F1 on validation and test."""
    lines = [
        "| split | thresholds | macro-F1 | 95 % interval | micro-F1 | weighted F1 | exact rows |",
        "|---|---|---|---|---|---|---|",
    ]
    for split in ("validation", "test"):
        for way, name in (("at_half", "0.5"), ("tuned", "tuned")):
            each = scores[split][way]
            low, high = each["macro_f1_interval"]
            lines.append(
                f"| {split} | {name} | {each['macro_f1']:.3f} | {low:.3f}–{high:.3f} | {each['micro_f1']:.3f} "
                f"| {each['weighted_f1']:.3f} | {each['exact_rows']:.3f} |"
            )
    return "\n".join(lines)


def union_line(scores: dict[str, Any]) -> str:
    """Return the optimistic protocol's figures, marked as such."""
    union = scores["optimistic_union"]
    return (
        "Optimistic protocol (thresholds tuned **and** scored on validation and test together; only for comparison with "
        "rubert-tiny2's published figures, 0.397 at 0.5 and 0.416 tuned): "
        f"{union['macro_f1_at_half']:.3f} at 0.5, {union['macro_f1_tuned']:.3f} tuned."
    )


def threshold_line(chosen: dict[str, Any]) -> str:
    """Return how thresholds were chosen and what cross-validation expected."""
    expected = ", ".join(f"{way} {value:.3f}" for way, value in chosen["expected_macro_f1"].items())
    moved = ", ".join(f"{label} {before:g} → {after:g}" for label, (before, after) in chosen["moved"].items())
    return (
        f"Cross-validated macro-F1 of ways to choose thresholds (on validation): {expected}. "
        f"Used: shrinkage {chosen['shrinkage']:g} toward {chosen['shared']:g}. "
        f"Moved on the support chats' tuning part: {moved or 'none'}."
    )


def corpora_table(corpora: dict[str, dict[str, Any]]) -> str:
    """Return the table of support-chat figures; empty where there is no such corpus."""
    if not corpora:
        return ""
    lines = [
        "| part | rows | hostile found | false alarms | distress found | distress taken for hostile | macro-F1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in corpora.items():
        lines.append(
            f"| {name} | {each['rows']} | {each['hostile_recall']:.1%} of {each['hostile_rows']} "
            f"| {each['false_alarms']:.1%} of {each['calm_rows']} | {each['distress_found']:.1%} of {each['distress_rows']} "
            f"| {each['distress_as_hostile']:.1%} | {each['macro_f1']:.3f} |"
        )
    return "\n".join(lines)


def label_table(by_label: dict[str, dict[str, Any]]) -> str:
    """Return the table of scores by label."""
    lines = ["| label | precision | recall | F1 | rows | threshold |", "|---|---|---|---|---|---|"]
    for label, each in by_label.items():
        lines.append(
            f"| {label} | {each['precision']:.2f} | {each['recall']:.2f} | {each['f1']:.2f} | {each['support']} "
            f"| {each['threshold']:.3g} |"
        )
    return "\n".join(lines)
