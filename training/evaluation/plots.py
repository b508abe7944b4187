"""The report's pictures: how predicted emotions go together, and which labels are strong or weak."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from worker.core.labels import GOEMOTIONS_LABELS

CORRELATION_PNG, LABELS_PNG = "correlation.png", "labels.png"
_DPI = 80


def plot_correlation(probabilities: npt.NDArray[np.floating], path: Path) -> None:
    """Draw the correlation of the labels' probabilities over rows, [rows, 28], as a heatmap."""
    spread = np.ptp(probabilities, axis=0) > 0
    correlation = np.zeros((len(spread), len(spread)))
    correlation[np.ix_(spread, spread)] = np.corrcoef(probabilities[:, spread], rowvar=False)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    ticks = range(len(GOEMOTIONS_LABELS))
    axes.set_xticks(ticks, GOEMOTIONS_LABELS, rotation=90, fontsize=7)
    axes.set_yticks(ticks, GOEMOTIONS_LABELS, fontsize=7)
    axes.set_title("Correlation of predicted probabilities (test)")
    figure.colorbar(image, shrink=0.8)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


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
        color=["#4878a8" if value >= mean else "#c8745c" for value in values],
    )
    axes.axvline(mean, color="black", linestyle="--", linewidth=1)
    axes.text(mean, -1.6, f" macro-F1 {mean:.3f}", fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_title("F1 by label (test, tuned thresholds); rows in brackets")
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
