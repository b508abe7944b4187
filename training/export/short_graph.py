"""The student as a short ONNX graph: the same logits as the whole model's, with a third of its multiplications left out.

Written node by node from the weights, since no exporter knows what may be left out:

- Of the last layer only the first position is computed, for nothing else reaches the head. Its query is carried through the key
  matrix, and the attended mean through the value matrix, so that no position needs a key or a value there.
- A bias on keys moves a query's scores all alike and is left out; a bias on values is added once, behind the attention.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from training.config import ConfigError
from training.export.onnx_export import INPUTS, OPSET

# How the names of those MatMul nodes begin that run once a token: nearly all of the work.
TOKENWISE = "tokenwise/"

_CONTRIBUTED = "com.microsoft"
_IR_VERSION = 10
_HIDDEN = -10_000.0
Array = npt.NDArray[Any]


def export_short(model: nn.Module, path: Path, *, max_tokens: int, half_words: bool) -> None:
    """Write the short graph for texts of up to `max_tokens`.

    With `half_words` the word table is float16.

    Raises `ConfigError` where the model isn't a BERT of the usual kind.
    """
    _check(model)
    graph = _Graph()
    _Bert(model, graph, max_tokens=max_tokens, half_words=half_words).write()
    proto = helper.make_graph(
        graph.nodes,
        "short",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", model.config.num_labels])],
        list(graph.constants.values()),
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_CONTRIBUTED, 1)]
    onnx.save(helper.make_model(proto, opset_imports=opsets, ir_version=_IR_VERSION), path)


def _check(model: nn.Module) -> None:
    config: Any = model.config
    is_usual = config.model_type == "bert" and config.hidden_act == "gelu" and not config.is_decoder
    if not is_usual or getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise ConfigError(
            "the short graph is for a BERT with gelu and absolute positions: set bundle.quantisation to block64 for this model"
        )


class _Graph:
    """Nodes and constants under way; every node's output is named after it."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, values: Array) -> str:
        """Add a constant, real numbers as float32 unless they are float16 already, and return its name."""
        is_wide = values.dtype in (np.float32, np.float64)
        self.constants[name] = numpy_helper.from_array(values.astype(np.float32) if is_wide else values, name)
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of ONNX's own and return its output."""
        return self._add(kind, inputs, name, attributes)[0]

    def add_contributed(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of onnxruntime's own and return its output."""
        return self._add(kind, inputs, "", {**attributes, "domain": _CONTRIBUTED})[0]

    def add_many(self, kind: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add a node of several outputs and return them."""
        return self._add(kind, inputs, "", attributes, count=count)

    def _add(self, kind: str, inputs: Sequence[str], name: str, attributes: dict[str, Any], *, count: int = 1) -> list[str]:
        name = name or f"{kind}_{len(self.nodes)}"
        outputs = [f"{name}_{index}" if index else name for index in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs


class _Bert:
    """Writes a BertForSequenceClassification into a graph. Matrices are [in, out] and float64 until they are constants."""

    def __init__(self, model: nn.Module, graph: _Graph, *, max_tokens: int, half_words: bool) -> None:
        config: Any = model.config
        self._g = graph
        self._weights = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
        self._layers, self._heads, self._width = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
        self._head_width = self._width // self._heads
        self._epsilon = config.layer_norm_eps
        self._max_tokens, self._half_words = max_tokens, half_words
        graph.constant("first", np.array(0, np.int64))
        graph.constant("at_0", np.array([0], np.int64))
        graph.constant("at_1", np.array([1], np.int64))

    def write(self) -> None:
        hidden = self._embed()
        for layer in range(self._layers - 1):
            queries, keys, values, missing = self._project(hidden, layer)
            # Scores are scaled within the queries' matrix.
            attended = self._g.add_contributed(
                "MultiHeadAttention", queries, keys, values, "", self._mask(), num_heads=self._heads, scale=1.0
            )
            hidden = self._finish_layer(layer, attended, hidden, missing=missing, prefix=TOKENWISE)
        self._head(self._last_layer(hidden))

    def _embed(self) -> str:
        g, at = self._g, "bert.embeddings."
        words = self._weights[at + "word_embeddings.weight"]
        positions = self._weights[at + "position_embeddings.weight"][: self._max_tokens]
        g.constant("words", words.astype(np.float16) if self._half_words else words)
        g.constant("positions", positions + self._weights[at + "token_type_embeddings.weight"][0])
        count = g.add("Shape", "input_ids", start=1, end=2)
        found = g.add("Gather", "words", "input_ids")
        if self._half_words:
            found = g.add("Cast", found, to=TensorProto.FLOAT)
        embedded = g.add("Add", found, g.add("Slice", "positions", "at_0", count, "at_0"))
        gain, shift = (g.constant(f"{at}{name}", self._weights[f"{at}LayerNorm.{name}"]) for name in ("weight", "bias"))
        return g.add("LayerNormalization", embedded, gain, shift, axis=-1, epsilon=self._epsilon)

    def _project(self, hidden: str, layer: int) -> tuple[str, str, str, Array]:
        """Add a layer's queries, keys and values; return them and the bias that the values lack."""
        g = self._g
        (queries, query_bias), (keys, _), (values, value_bias) = self._projections(layer)
        matrix = g.constant(f"layer{layer}/attention", np.concatenate([queries, keys, values], axis=1))
        product = g.add("MatMul", hidden, matrix, name=f"{TOKENWISE}{matrix}")
        found = g.add_many("Split", product, count=3, axis=-1, num_outputs=3)
        return g.add("Add", found[0], g.constant(f"layer{layer}/query_bias", query_bias)), found[1], found[2], value_bias

    def _last_layer(self, hidden: str) -> str:
        """Add the last layer for the first position alone; return its vector, [batch, width]."""
        g, layer, heads, width = self._g, self._layers - 1, self._heads, self._head_width
        (queries, query_bias), (keys, _), (values, value_bias) = self._projections(layer)
        g.constant("last/by_head", np.array([-1, heads, width], np.int64))
        g.constant("last/joined", np.array([-1, self._width], np.int64))
        first = g.add("Gather", hidden, "first", axis=1)
        query = g.add("Gemm", first, g.constant("last/query", queries), g.constant("last/query_bias", query_bias))
        query = self._heads_first(g.add("Reshape", query, "last/by_head"))
        key_matrices = g.constant("last/key", keys.T.reshape(heads, width, self._width))
        asked = self._heads_first(g.add("MatMul", query, key_matrices))
        scores = g.add("Add", g.add_contributed("FusedMatMul", asked, hidden, transB=1), self._score_of_padding())
        mean = self._heads_first(g.add("MatMul", g.add("Softmax", scores, axis=-1), hidden))
        value_matrices = g.constant("last/value", values.reshape(self._width, heads, width).transpose(1, 0, 2))
        attended = self._heads_first(g.add("MatMul", mean, value_matrices))
        return self._finish_layer(layer, g.add("Reshape", attended, "last/joined"), first, missing=value_bias, prefix="")

    def _finish_layer(self, layer: int, attended: str, hidden: str, *, missing: Array, prefix: str) -> str:
        """Add what comes after the attention: its output matrix and the feed-forward part, both normalised."""
        at, own = f"bert.encoder.layer.{layer}.", f"layer{layer}/"
        matrix, bias = self._linear(at + "attention.output.dense")
        attended = self._times(attended, own + "attention_output", matrix, prefix=prefix)
        hidden = self._normalise(attended, hidden, at + "attention.output.LayerNorm", bias=bias + missing @ matrix)
        inner, inner_bias = self._linear(at + "intermediate.dense")
        outer, outer_bias = self._linear(at + "output.dense")
        wide = self._times(hidden, own + "inner", inner, prefix=prefix)
        wide = self._g.add_contributed("BiasGelu", wide, self._g.constant(own + "inner_bias", inner_bias))
        narrow = self._times(wide, own + "outer", outer, prefix=prefix)
        return self._normalise(narrow, hidden, at + "output.LayerNorm", bias=outer_bias)

    def _head(self, first: str) -> None:
        g = self._g
        pooler, pooler_bias = self._linear("bert.pooler.dense")
        labels, labels_bias = self._linear("classifier")
        pooled = g.add("Gemm", first, g.constant("pooler", pooler), g.constant("pooler_bias", pooler_bias))
        inputs = (g.add("Tanh", pooled), g.constant("labels", labels), g.constant("labels_bias", labels_bias))
        g.add("Gemm", *inputs, name="logits")

    def _projections(self, layer: int) -> list[tuple[Array, Array]]:
        """Return matrix and bias of queries, keys and values; the queries' are divided as attention asks."""
        at = f"bert.encoder.layer.{layer}.attention.self."
        (queries, bias), *others = (self._linear(at + name) for name in ("query", "key", "value"))
        return [(queries / self._head_width**0.5, bias / self._head_width**0.5), *others]

    def _linear(self, at: str) -> tuple[Array, Array]:
        return self._weights[f"{at}.weight"].T, self._weights[f"{at}.bias"]

    def _times(self, tokens: str, name: str, matrix: Array, *, prefix: str) -> str:
        name = self._g.constant(name, matrix)
        return self._g.add("MatMul", tokens, name, name=f"{prefix}{name}" if prefix else f"{name}_product")

    def _normalise(self, new: str, old: str, at: str, *, bias: Array) -> str:
        """Add new + bias + old, normalised."""
        # Sum where Add would do: onnxruntime joins Add and LayerNormalization into a kernel several times as slow as both.
        g = self._g
        total = g.add("Sum", g.add("Add", new, g.constant(f"{at}.before", bias)), old)
        gain, shift = (g.constant(f"{at}.{name}", self._weights[f"{at}.{name}"]) for name in ("weight", "bias"))
        return g.add("LayerNormalization", total, gain, shift, axis=-1, epsilon=self._epsilon)

    def _mask(self) -> str:
        return self._g.add("Cast", "attention_mask", to=TensorProto.INT32)

    def _score_of_padding(self) -> str:
        """Add what is added to scores, [batch, 1, tokens]: nothing, or for padding so little that it counts for nothing."""
        g = self._g
        g.constant("one", np.array(1.0))
        g.constant("hidden", np.array(_HIDDEN))
        padding = g.add("Sub", "one", g.add("Cast", "attention_mask", to=TensorProto.FLOAT))
        return g.add("Unsqueeze", g.add("Mul", padding, "hidden"), "at_1")

    def _heads_first(self, vectors: str) -> str:
        """Swap the first two axes, of texts and heads."""
        return self._g.add("Transpose", vectors, perm=[1, 0, 2])
