"""int8 for the short graph's matrices that run once a token, with scales fixed beforehand on calibration texts.

A text's integers then depend on nothing but its own tokens, whatever it is batched with, and are the same on every processor:

- before it is rounded, each channel is divided by a factor that its weights are multiplied with, so that a few loud channels
  don't take the whole range of an activation (SmoothQuant);
- weights are scaled so that the products of two neighbours never overflow 16 bits, in which processors without VNNI add them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from training.export.quantise import Feeds
from training.export.short_graph import TOKENWISE

# The share of a channel's loudness that is moved into its weights: 0 moves nothing, 1 makes all channels equally loud.
_SMOOTHING = 0.85
_LARGEST, _LEVELS = 127, 255
_LEAST = 1e-5


@dataclass(frozen=True, slots=True)
class ChannelRanges:
    """Least and greatest value of each channel that was seen."""

    least: npt.NDArray[np.float32]
    greatest: npt.NDArray[np.float32]


def quantise_tokens(source: Path, target: Path, *, calibration: Sequence[Feeds]) -> None:
    """Write a short graph with its per-token matrices in int8 a column and their inputs in uint8."""
    model = onnx.load(source)
    ranges = _observe(model, calibration)
    matrices = {each.name: each for each in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        if not node.name.startswith(TOKENWISE):
            nodes.append(node)
            continue
        stored = matrices[node.input[1]]
        model.graph.initializer.remove(stored)
        made, constants = _in_int8(node, numpy_helper.to_array(stored), ranges[node.input[0]])
        nodes += made
        model.graph.initializer.extend(constants)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def int8_columns(matrix: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 weights [in, out] and a scale a column; of two neighbours in a column no sum of one sign passes ±128.

    255 times such a sum fits into 16 bits.
    """
    padded = np.pad(matrix, ((0, len(matrix) % 2), (0, 0))).reshape(-1, 2, matrix.shape[1])
    sums = np.maximum(np.maximum(padded, 0).sum(1), np.maximum(-padded, 0).sum(1))
    scales = np.maximum(sums.max(0), _LEAST) / _LARGEST
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)


def smoothing_factors(
    matrix: npt.NDArray[np.floating], ranges: ChannelRanges, *, share: float = _SMOOTHING
) -> npt.NDArray[np.float32]:
    """Return what each channel of an activation is divided by, [in]; their geometric mean is 1."""
    loudness = np.maximum(np.maximum(-ranges.least, ranges.greatest), _LEAST)
    factors = loudness**share / np.maximum(np.abs(matrix).max(1), _LEAST) ** (1 - share)
    return (factors / np.exp(np.log(factors).mean())).astype(np.float32)


def _in_int8(node: Any, matrix: npt.NDArray[np.float32], ranges: ChannelRanges) -> tuple[list[Any], list[Any]]:
    """Return the nodes and constants that take a MatMul's place."""
    name, factors = node.input[1], smoothing_factors(matrix, ranges)
    weights, scales = int8_columns(matrix * factors[:, None])
    least = min(float((ranges.least / factors).min()), 0.0)
    step = max(float((ranges.greatest / factors).max()) - least, _LEAST) / _LEVELS
    constants = {
        "by": 1 / factors,
        "step": np.array(step, np.float32),
        "zero": np.array(round(-least / step), np.uint8),
        "int8": weights,
        "scale": scales,
    }
    quiet, rounded = f"{name}/quiet", f"{name}/rounded"
    nodes = [
        helper.make_node("Mul", [node.input[0], f"{name}/by"], [quiet], quiet),
        helper.make_node("QuantizeLinear", [quiet, f"{name}/step", f"{name}/zero"], [rounded], rounded),
        helper.make_node(
            "MatMulIntegerToFloat",
            [rounded, *(f"{name}/{each}" for each in ("int8", "step", "scale", "zero"))],
            list(node.output),
            node.name,
            domain="com.microsoft",
        ),
    ]
    return nodes, [numpy_helper.from_array(values, f"{name}/{each}") for each, values in constants.items()]


def _observe(model: onnx.ModelProto, calibration: Sequence[Feeds]) -> dict[str, ChannelRanges]:
    """Run the graph on the calibration texts; return the ranges of every per-token matrix's input, padding left out."""
    names = sorted({node.input[0] for node in model.graph.node if node.name.startswith(TOKENWISE)})
    if not names:  # a model of one layer
        return {}
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(observed.SerializeToString(), providers=["CPUExecutionProvider"])
    ranges: dict[str, ChannelRanges] = {}
    for feeds in calibration:
        is_token = feeds["attention_mask"].astype(bool)
        for name, values in zip(names, session.run(names, feeds), strict=True):
            least, greatest = values[is_token].min(0), values[is_token].max(0)
            if name in ranges:
                least, greatest = np.minimum(ranges[name].least, least), np.maximum(ranges[name].greatest, greatest)
            ranges[name] = ChannelRanges(least, greatest)
    return ranges
