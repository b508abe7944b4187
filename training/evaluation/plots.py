"""The report's pictures: strong and weak labels, threshold curves, reliability of probabilities, which emotions go together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from training.evaluation.calibration_error import reliability_curve
from training.evaluation.confusions import label_correlations
from training.evaluation.metrics import label_scores
from training.evaluation.saved_logits import Scored
from worker.core.labels import GOEMOTIONS_LABELS

CORRELATION_PNG, LABELS_PNG, THRESHOLDS_PNG, RELIABILITY_PNG = (
    "correlation.png",
    "labels.png",
    "thresholds.png",
    "reliability.png",
)
PICTURES = (LABELS_PNG, THRESHOLDS_PNG, RELIABILITY_PNG, CORRELATION_PNG)
_DPI = 80
_BLUE, _RED, _GREY = "#4878a8", "#c8745c", "#8a8a8a"
_CUTS = np.arange(1, 100) / 100
_COLUMNS = 4


def plot_correlation(probabilities: npt.NDArray[np.float64], path: Path) -> None:
    """Draw the correlation of the labels' probabilities over rows, [rows, 28], as a heatmap."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(label_correlations(probabilities), cmap="RdBu_r", vmin=-1, vmax=1)
    ticks = range(len(GOEMOTIONS_LABELS))
    axes.set_xticks(ticks, GOEMOTIONS_LABELS, rotation=90, fontsize=7)
    axes.set_yticks(ticks, GOEMOTIONS_LABELS, fontsize=7)
    axes.set_title("Correlation of predicted probabilities (test)")
    figure.colorbar(image, shrink=0.8)
    _save(figure, path)


def plot_labels(by_label: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw F1 by label, weakest first, with the mean as a line."""
    ranked = sorted(by_label, key=lambda label: by_label[label]["f1"])
    values = [by_label[label]["f1"] for label in ranked]
    mean = float(np.mean(values))
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(
        [f"{label} ({by_label[label]['support']})" for label in ranked],
        values,
        color=[_BLUE if value >= mean else _RED for value in values],
    )
    axes.axvline(mean, color="black", linestyle="--", linewidth=1)
    axes.text(mean, -1.6, f" macro-F1 {mean:.3f}", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("F1 by label (test, tuned thresholds); rows in brackets")
    _save(figure, path)


def plot_thresholds(scored: Scored, thresholds: npt.NDArray[np.float64], path: Path) -> None:
    """Draw each label's precision, recall and F1 against its threshold, and where the threshold was put."""
    at_cuts = [label_scores(scored.labels, scored.probabilities >= cut) for cut in _CUTS]
    curves = {
        "precision": (np.array([each.precision for each in at_cuts]), _BLUE),
        "recall": (np.array([each.recall for each in at_cuts]), _RED),
        "F1": (np.array([each.f1 for each in at_cuts]), "black"),
    }
    for number, cut in enumerate(_CUTS):  # no precision where no row is over the threshold
        curves["precision"][0][number, ~(scored.probabilities >= cut).any(0)] = np.nan
    rows = -(-len(GOEMOTIONS_LABELS) // _COLUMNS)
    figure = Figure(figsize=(10, 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for index, label in enumerate(GOEMOTIONS_LABELS):
        axes = panels[index]
        for name, (values, colour) in curves.items():
            axes.plot(_CUTS, values[:, index], color=colour, linewidth=1.2, label=name)
        axes.axvline(thresholds[index], color=_GREY, linestyle="--", linewidth=1)
        axes.set_title(f"{label} ({thresholds[index]:.3g})", fontsize=8)
        axes.tick_params(labelsize=6)
    panels[0].set_xlim(0, 1)
    panels[0].set_ylim(0, 1)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(curves), fontsize=8)
    figure.suptitle("Precision, recall and F1 against the threshold (validation); dashed: the threshold chosen", fontsize=10)
    _save(figure, path)


def plot_reliability(before: Mapping[str, Scored], after: Mapping[str, Scored], path: Path) -> None:
    """Draw how often labels are true against how probable they were called, before and after calibration, by part."""
    figure = Figure(figsize=(4.2 * len(before), 4), layout="constrained")
    panels = figure.subplots(1, len(before), sharex=True, sharey=True, squeeze=False).ravel()
    for axes, part in zip(panels, before, strict=True):
        axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
        for scored, colour, name in ((before[part], _RED, "as the model gives it"), (after[part], _BLUE, "calibrated")):
            curve = reliability_curve(scored.probabilities, scored.labels)
            axes.plot([each[0] for each in curve], [each[1] for each in curve], "o-", color=colour, markersize=4, label=name)
        axes.set_title(part, fontsize=9)
        axes.set_xlabel("probability", fontsize=8)
    panels[0].set_ylabel("share of labels that are true", fontsize=8)
    panels[0].legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
