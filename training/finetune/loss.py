"""The multi-label losses: weighted binary cross-entropy, focal, asymmetric, and distillation."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, mse_loss

from training.config import AsymmetricConfig, DistilConfig, LossConfig

_ABOVE_ZERO = 1e-8  # a power below 1 has no gradient at 0


def positive_weights(labels: npt.NDArray[np.floating], config: LossConfig) -> npt.NDArray[np.float32]:
    """Return a weight a label for its positive cells, from multi-hot labels [rows, labels].

    `inverse_sqrt` is 1/sqrt(frequency), `inverse` 1/frequency, where a frequency is the label's share of the rows;
    `effective_number` is (1 - beta)/(1 - beta^support) scaled to mean 1 (Cui et al. 2019, "Class-Balanced Loss Based
    on Effective Number of Samples"). A label without rows counts as having one.
    """
    support = np.maximum(labels.sum(0), 1.0)
    frequency = support / max(1, len(labels))
    if config.pos_weight == "inverse_sqrt":
        weights = 1.0 / np.sqrt(frequency)
    elif config.pos_weight == "inverse":
        weights = 1.0 / frequency
    elif config.pos_weight == "effective_number":
        weights = (1.0 - config.effective_beta) / (1.0 - config.effective_beta**support)
        weights = weights / weights.mean()
    else:
        weights = np.ones_like(support)
    return weights.astype(np.float32)


def label_loss(logits: torch.Tensor, labels: torch.Tensor, *, pos_weight: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Return the mean weighted binary cross-entropy, of shape [].

    With `focal_gamma` each cell is scaled by (1 - the true side's probability)^gamma (Lin et al. 2017, "Focal Loss"); with
    `asymmetric`, see `asymmetric_loss`.
    """
    if config.asymmetric:
        return asymmetric_loss(logits, labels, pos_weight=pos_weight, config=config.asymmetric)
    if not config.focal_gamma:
        return binary_cross_entropy_with_logits(logits, labels, pos_weight=pos_weight)
    cells = binary_cross_entropy_with_logits(logits, labels, pos_weight=pos_weight, reduction="none")
    probability = torch.sigmoid(logits)
    wrong = labels * (1 - probability) + (1 - labels) * probability
    return (wrong**config.focal_gamma * cells).mean()


def asymmetric_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, pos_weight: torch.Tensor, config: AsymmetricConfig
) -> torch.Tensor:
    """Return the mean asymmetric loss, of shape [] (Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification").

    Positive cells cost (1 - p)^gamma_pos · -log p, negative ones q^gamma_neg · -log(1 - q), where q = max(0, p - margin).
    """
    probability = torch.sigmoid(logits)
    shifted = (probability - config.margin).clamp(min=_ABOVE_ZERO)
    positive = (1 - probability).clamp(min=_ABOVE_ZERO) ** config.gamma_pos * -logsigmoid(logits)
    # Without a margin the logits say exactly what log(1 - q) loses where q rounds to 1.
    from_negative = torch.log1p(-shifted) if config.margin else logsigmoid(-logits)
    negative = shifted**config.gamma_neg * -from_negative
    return (labels * pos_weight * positive + (1 - labels) * negative).mean()


@dataclass(frozen=True, slots=True)
class DistilTargets:
    """What a batch is taught: labels and the teacher's probabilities [texts, labels], its vectors [texts, teacher's width].

    `is_labelled` [texts] is 0 for texts that only the teacher speaks about: their labels count for nothing. `pos_weight`
    is [texts, labels], since the domains weigh positives differently.
    """

    labels: torch.Tensor
    is_labelled: torch.Tensor
    pos_weight: torch.Tensor
    probabilities: torch.Tensor
    vectors: torch.Tensor


def distil_loss(
    logits: torch.Tensor,
    projected: torch.Tensor,
    *,
    targets: DistilTargets,
    progress: float,
    config: DistilConfig,
) -> torch.Tensor:
    """Return the distillation loss at `progress` (0..1 of the steps): first the teacher's vectors, then its decisions."""
    g = min(1.0, progress / config.ramp)
    cells = binary_cross_entropy_with_logits(logits, targets.labels, pos_weight=targets.pos_weight, reduction="none")
    by_labels = cells.mean(1)
    return (
        config.label_weight * g * (by_labels * targets.is_labelled).mean()
        + (config.teacher_weight + config.teacher_gain * g) * binary_cross_entropy_with_logits(logits, targets.probabilities)
        + (config.vector_weight - config.vector_fall * g) * mse_loss(projected, targets.vectors)
    )
