"""The mean of a model's weights over the last steps of a run.

Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization", over steps instead of epochs.
"""

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_EVERY_STEPS = 10


class AverageLastSteps(TrainerCallback):
    """Keeps the running mean of the weights over the last `share` of the steps, every tenth step."""

    def __init__(self, model: nn.Module, *, share: float) -> None:
        self._model = model
        self._share = share
        self._mean: dict[str, torch.Tensor] = {}
        self._taken = 0

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Take the weights in, when it is their turn."""
        if state.global_step < (1 - self._share) * state.max_steps or state.global_step % _EVERY_STEPS:
            return
        self._taken += 1
        for name, value in self._model.state_dict().items():
            if name not in self._mean:
                self._mean[name] = value.detach().clone()
            elif value.is_floating_point():
                self._mean[name].lerp_(value, 1.0 / self._taken)

    @property
    def averaged(self) -> dict[str, torch.Tensor] | None:
        """The mean state dict, or None where no step was taken in."""
        return self._mean or None
