"""The scores in words and Markdown tables: what the report, the card and the command `score` have in common."""

from collections.abc import Iterable, Sequence
from typing import Any

from training.evaluation.calibration_error import BINS
from training.evaluation.errors import Mistake
from training.evaluation.tones import TONES

TONE_WORDS = "A message is negative when any of its labels is."
NOISE_WORDS = (
    "The same messages as a hurried client would type them: one or two typos, no punctuation, capitals, е for ё; does the tone "
    "stay what it was?"
)
CHAT_WORDS = (
    "Whole chats by the escalation policy that the scores were made with, messages a minute apart. The default policy's "
    "numbers were chosen on `tuning`, whose figures flatter it."
)
_FEW_ROWS = 30


def split_table(scores: dict[str, Any]) -> str:
    """Return the table of macro, micro and weighted F1 on validation and test."""
    rows = []
    for split in ("validation", "test"):
        for way, name in (("at_half", "0.5"), ("tuned", "tuned")):
            each = scores[split][way]
            low, high = each["macro_f1_interval"]
            figures = (each["micro_f1"], each["weighted_f1"], each["exact_rows"])
            rows.append(
                (split, name, f"{each['macro_f1']:.3f}", f"{low:.3f}–{high:.3f}", *(f"{figure:.3f}" for figure in figures))
            )
    return table(("split", "thresholds", "macro-F1", "95 % interval", "micro-F1", "weighted F1", "exact rows"), rows)


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
    return table(
        ("part", "rows", "hostile found", "false alarms", "distress found", "distress taken for hostile", "macro-F1"),
        [
            (
                name,
                each["rows"],
                f"{each['hostile_recall']:.1%} of {each['hostile_rows']}",
                f"{each['false_alarms']:.1%} of {each['calm_rows']}",
                f"{each['distress_found']:.1%} of {each['distress_rows']}",
                f"{each['distress_as_hostile']:.1%}",
                f"{each['macro_f1']:.3f}",
            )
            for name, each in corpora.items()
        ],
    )


def tone_table(tones: dict[str, dict[str, Any]]) -> str:
    """Return the table of how negative messages are told from the others."""
    return table(
        ("part", "rows", "negative", "precision", "recall", "F1", "tone right"),
        [
            (
                part,
                each["rows"],
                each["negative_rows"],
                *(f"{each[name]:.1%}" for name in ("precision", "recall")),
                f"{each['f1']:.3f}",
                f"{each['same_tone']:.1%}",
            )
            for part, each in tones.items()
        ],
    )


def tone_confusion_table(tones: dict[str, Any]) -> str:
    """Return the confusion of the five tones, a row each true tone, a column each given one."""
    return table(("true \\ given", *TONES), [(true, *row.values()) for true, row in tones["confusion"].items()])


def noise_table(noise: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the table of tones that noise leaves as they were."""
    return table(
        ("part", "noise", "texts it changes", "tone stays, of those", "tone stays, of all"),
        [
            (part, kind, *(f"{each[name]:.1%}" for name in ("changed_texts", "same_tone", "same_tone_of_all")))
            for part, kinds in noise.items()
            for kind, each in kinds.items()
        ],
    )


def escalation_table(escalations: dict[str, dict[str, Any]]) -> str:
    """Return the table of whole chats; the wrong ones by their ids."""
    return table(
        ("chats", "should escalate", "found", "false alarms", "missed", "alarmed"),
        [
            (
                f"{name} ({each['chats']})",
                each["should_escalate"],
                f"{each['found']:.1%}",
                f"{each['false_alarms']:.1%}",
                ", ".join(map(cell, each["missed"])) or "none",
                ", ".join(map(cell, each["alarmed"])) or "none",
            )
            for name, each in escalations.items()
        ],
    )


def calibration_words(*, is_calibrated: bool) -> str:
    """Return what a calibration error is, and whether what is published is calibrated."""
    published = (
        "Thresholds decide on plain sigmoids; what is published is calibrated, probability and threshold alike."
        if is_calibrated
        else "Nothing is calibrated here: plain sigmoids are published, before and after are the same."
    )
    return (
        f"Calibration error: the mean distance of probability and share of true labels over {BINS} bins of equally many rows, "
        f"mean over labels. {published}"
    )


def calibration_table(scores: dict[str, Any]) -> str:
    """Return calibration errors and Brier scores before and after, first cross-validated ones, then on unseen parts."""
    fitted = scores.get("calibration_fit", {}).get("cross_validated", {})
    parts = {f"{part} (cross-validated)": each for part, each in fitted.items()} | scores["calibration"]
    return table(
        ("part", "calibration error before", "after", "Brier score before", "after"),
        [
            (
                part,
                *(f"{each[when]['calibration_error']:.2%}" for when in ("before", "after")),
                *(f"{each[when]['brier']:.4f}" for when in ("before", "after")),
            )
            for part, each in parts.items()
        ],
    )


def label_table(by_label: dict[str, dict[str, Any]], averages: dict[str, dict[str, float]]) -> str:
    """Return the table of scores by label, and their averages."""
    rows: list[Sequence[Any]] = [
        (
            label,
            *(f"{each[name]:.2f}" for name in ("precision", "recall", "f1")),
            each["support"],
            f"{each['threshold']:.3g}",
            f"{each['published_threshold']:.3g}",
        )
        for label, each in by_label.items()
    ]
    for name in ("macro", "micro", "weighted"):
        rows.append(
            (f"**{name} average**", *(f"{averages[name][each]:.2f}" for each in ("precision", "recall", "f1")), "", "", "")
        )
    return table(("label", "precision", "recall", "F1", "rows", "threshold", "published as"), rows)


def strength_line(by_label: dict[str, dict[str, Any]]) -> str:
    """Return strong and weak labels in words: above and below the mean F1."""
    mean = sum(each["f1"] for each in by_label.values()) / len(by_label)
    ranked = sorted(by_label, key=lambda label: -by_label[label]["f1"])
    named = [f"{label} {by_label[label]['f1']:.2f}" for label in ranked]
    above = sum(by_label[label]["f1"] >= mean for label in ranked)
    rare = [label for label in ranked if by_label[label]["support"] < _FEW_ROWS]
    warning = f" Too few test rows to tell (under {_FEW_ROWS}): {', '.join(rare)}." if rare else ""
    return (
        f"**Strong**, at or above the mean F1 of {mean:.3f}: {', '.join(named[:above])}. "
        f"**Weak**, below it: {', '.join(named[above:]) or 'none'}.{warning}"
    )


def confused_table(pairs: Iterable[dict[str, Any]]) -> str:
    """Return the table of the most confused pairs."""
    return table(
        ("true, not given", "given, not true", "rows", "of the true label's rows"),
        [(each["label"], each["given"], each["rows"], f"{each['share']:.1%}") for each in pairs],
    )


def correlation_line(pairs: dict[str, list[tuple[str, str, float]]]) -> str:
    """Return in words which emotions the model hears together and which it never does."""

    def named(found: list[tuple[str, str, float]]) -> str:
        return ", ".join(f"{first} and {second} ({value:+.2f})" for first, second, value in found) or "none"

    return f"Most often together: {named(pairs['together'])}. Most apart: {named(pairs['apart'])}."


def mistakes_table(mistakes: Iterable[Mistake]) -> str:
    """Return mistakes with their texts."""
    return table(
        ("text", "labels", "wrong about", "given"),
        [
            (cell(each.row.text), ", ".join(each.row.labels), each.label, ", ".join(each.given) or "nothing")
            for each in mistakes
        ],
    )


def cell(text: str) -> str:
    """Return a text that a Markdown table can hold: on one line, its special characters as they are read."""
    plain = " ".join(text.split())
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#~&" else character for character in plain)


def table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; empty where it would have no rows."""
    if not rows:
        return ""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(str(each) for each in line)} |" for line in lines)
