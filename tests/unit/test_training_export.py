from pathlib import Path

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from training.export.compare import comparison_table
from training.export.parity import Parity, ParityRows, compare_with_torch, feeds_of, open_session
from training.export.quantise import int8_rows, quantise_blocks, quantise_dynamic, quantise_embeddings

VOCABULARY, WIDTH = 600, 32


def _write_graph(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A stand-in for a model: the mean of a text's embeddings, and one linear layer. Returns its two tables."""
    chance = np.random.default_rng(0)
    table = chance.normal(0, 0.3, (VOCABULARY, WIDTH)).astype(np.float32)
    matrix = chance.normal(0, 1, (WIDTH, 28)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["rows", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens_axis"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "matrix"], ["logits"]),
    ]
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 28])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array([1], np.int64), "tokens_axis"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return table, matrix


def _rows(table: np.ndarray, matrix: np.ndarray, *, texts: int = 60) -> ParityRows:
    chance = np.random.default_rng(1)
    token_ids = [chance.integers(2, VOCABULARY, chance.integers(3, 20)).tolist() for _ in range(texts)]
    logits = np.stack([table[ids].sum(0) @ matrix for ids in token_ids])
    return ParityRows(token_ids, (logits > 0).astype(np.float32), logits, np.full(28, 0.5), pad_id=1)


@given(hnp.arrays(np.float32, (6, 5), elements=st.floats(-100, 100, width=32)))
def test_int8_rows_are_within_half_a_step_of_the_table(table: np.ndarray) -> None:
    rows, scales = int8_rows(table)
    assert (np.abs(rows * scales - table) <= scales * 0.5001 + 1e-9).all()


def test_embeddings_in_int8_are_a_quarter_of_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    table, matrix = _write_graph(tmp_path / "float.onnx")
    (tmp_path / "int8.onnx").write_bytes((tmp_path / "float.onnx").read_bytes())
    quantise_embeddings(tmp_path / "int8.onnx")
    rows = _rows(table, matrix)
    feeds = feeds_of(rows.token_ids, pad_id=1)
    (logits,) = open_session(tmp_path / "int8.onnx", threads=1).run(["logits"], feeds)
    assert np.abs(logits - rows.torch_logits).max() < 0.3
    assert (tmp_path / "int8.onnx").stat().st_size < 0.45 * (tmp_path / "float.onnx").stat().st_size


def test_an_exact_export_agrees_wholly_with_its_model(tmp_path: Path) -> None:
    rows = _rows(*_write_graph(tmp_path / "float.onnx"))
    parity = compare_with_torch(tmp_path / "float.onnx", rows, threads=1, seed=0)
    assert (parity.cell_agreement, parity.row_agreement, parity.macro_f1_difference) == (1.0, 1.0, 0.0)
    assert parity.batch_dependence <= 1e-4
    assert parity.messages_per_s > 0


def test_one_scale_for_the_batch_is_found_out_and_blocks_are_not_concerned(tmp_path: Path) -> None:
    rows = _rows(*_write_graph(tmp_path / "float.onnx"))
    quantise_dynamic(tmp_path / "float.onnx", tmp_path / "dynamic.onnx")
    quantise_blocks(tmp_path / "float.onnx", tmp_path / "blocks.onnx", block_size=32)
    dynamic, blocks = (compare_with_torch(tmp_path / f"{way}.onnx", rows, threads=1, seed=0) for way in ("dynamic", "blocks"))
    assert dynamic.batch_dependence > 0.001
    assert blocks.batch_dependence <= 1e-4
    assert blocks.cell_agreement > 0.99


def test_the_comparison_has_a_row_for_every_way() -> None:
    parity = Parity(15.5, 0.991, 0.8, -0.001, 0.0123, 3, 500.0, 300.0)
    table = comparison_table({"float32": parity, "static": parity})
    assert table.count("\n") == 4
    assert "| static | 15.5 | 99.10% | 80.00% | -0.0010 | 0.0123 | 3 | 500 | 300 |" in table
