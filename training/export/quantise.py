"""Three ways to int8, and embeddings in int8 for all of them.

What differs is where an activation's scale comes from: `dynamic` takes one for a whole batch at run time, so that a text's
logits depend on its neighbours; `static` one for ever, from calibration texts; `block` (MatMulNBits, accuracy level 4) one
for every 32 or 64 numbers of a token, which no neighbour can touch.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

Feeds = dict[str, npt.NDArray[np.int64]]
_MIN_TABLE_ROWS = 512
_MATRIX_OPERATORS = ["MatMul", "Gemm"]
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level


def quantise_dynamic(source: Path, target: Path) -> None:
    """Write weights in int8 a column, activations in uint8 with one scale for the whole batch."""
    quantize_dynamic(source, target, op_types_to_quantize=_MATRIX_OPERATORS, per_channel=True, weight_type=QuantType.QInt8)
    quantise_embeddings(target)


def quantise_static(source: Path, target: Path, *, calibration: Sequence[Feeds]) -> None:
    """Write weights in int8 a column, activations in uint8 with scales fixed on the calibration batches."""
    quantize_static(
        source,
        target,
        _Batches(calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=_MATRIX_OPERATORS,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    quantise_embeddings(target)


def quantise_blocks(source: Path, target: Path, *, block_size: int = 32) -> None:
    """Write weights in int8 by blocks of `block_size`; at run time activations are int8 by blocks of a token's numbers."""
    config = DefaultWeightOnlyQuantConfig(block_size=block_size, is_symmetric=True, accuracy_level=_INT8_ACTIVATIONS, bits=8)
    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)  # it tells of every node
    quantiser = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
    quantiser.process()
    onnx.save(quantiser.model.model, target)
    quantise_embeddings(target)


def quantise_embeddings(path: Path) -> None:
    """Replace every large table that a Gather reads by int8 rows and a float32 scale a row, in place."""
    model = onnx.load(path)
    graph = model.graph
    tables = {each.name: each for each in graph.initializer}
    nodes: list[Any] = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2 or table.dims[0] < _MIN_TABLE_ROWS:
            nodes.append(node)
            continue
        rows, scales = int8_rows(numpy_helper.to_array(table))
        graph.initializer.remove(table)
        graph.initializer.extend(
            [numpy_helper.from_array(rows, f"{table.name}_int8"), numpy_helper.from_array(scales, f"{table.name}_scale")]
        )
        nodes += _gather_and_scale(table.name, indices=node.input[1], output=node.output[0])
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def int8_rows(table: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 rows and a scale a row, [rows, width] and [rows, 1]; row · scale is within half a scale of the table."""
    scales = np.maximum(np.abs(table).max(1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(table / scales).astype(np.int8), scales


def _gather_and_scale(table: str, *, indices: str, output: str) -> list[Any]:
    rows, scale, real = f"{table}_rows", f"{table}_row_scale", f"{table}_float"
    return [
        helper.make_node("Gather", [f"{table}_int8", indices], [rows], f"{table}_gather", axis=0),
        helper.make_node("Gather", [f"{table}_scale", indices], [scale], f"{table}_gather_scale", axis=0),
        helper.make_node("Cast", [rows], [real], f"{table}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [real, scale], [output], f"{table}_dequantise"),
    ]


class _Batches(CalibrationDataReader):
    """Hands calibration batches over one by one, then None."""

    def __init__(self, batches: Sequence[Feeds]) -> None:
        self._batches: Iterator[Feeds] = iter(batches)

    def get_next(self) -> Feeds | None:
        return next(self._batches, None)
