"""The student as an ONNX graph in float32: input_ids, attention_mask int64 [batch, tokens] to logits float32 [batch, 28]."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

INPUTS = ("input_ids", "attention_mask")
OPSET = 18


class _LogitsOnly(nn.Module):
    """The model with exactly the inputs and the output that the worker knows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def load_for_export(model_folder: Path) -> Any:
    """Load a trained classifier in evaluation mode, with attention written out in plain operators."""
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def export_onnx(model: nn.Module, path: Path) -> None:
    """Write the graph; both axes of the inputs stay dynamic."""
    input_ids = torch.arange(5, 5 + 2 * 7).reshape(2, 7)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            _LogitsOnly(model).eval(),
            (input_ids, torch.ones_like(input_ids)),
            str(path),
            input_names=list(INPUTS),
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            external_data=False,
        )
