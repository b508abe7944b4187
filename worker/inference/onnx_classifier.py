"""The classifier that ships: the bundle's ONNX graph on onnxruntime's CPU provider."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from worker.core.failures import ModelBundleError
from worker.inference.classifier import TokenizedText
from worker.inference.cores import available_cores
from worker.inference.executor import InferenceExecutor, InferenceWatch
from worker.inference.model_bundle import ONNX_NAME, TOKENIZER_NAME, ModelBundle
from worker.inference.text_cache import TextCache
from worker.inference.tokenizer import BundleTokenizer, pad_token_ids


class OnnxClassifier:
    """Runs a bundle's model.onnx. `threads` 0 takes every core that the process may use."""

    def __init__(self, bundle: ModelBundle, *, threads: int = 0) -> None:
        threads = threads or available_cores()
        self._pad_token_id = bundle.manifest.pad_token_id
        self._tokenizer = BundleTokenizer(bundle.read(TOKENIZER_NAME), max_tokens=bundle.manifest.max_tokens, threads=threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle inference threads must not spin: the event loop, and other workers, need the core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # From bytes a graph can't draw in files that nobody verified, as its external data could from a path.
            self._session = ort.InferenceSession(bundle.read(ONNX_NAME), options, providers=["CPUExecutionProvider"])
        except ModelBundleError:
            raise
        except Exception as error:
            raise ModelBundleError(
                f"{bundle.folder / ONNX_NAME} can't be loaded by onnxruntime {ort.__version__}: {error}"
            ) from error

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of each text, in order."""
        return self._tokenizer.tokenize(texts)

    def logits(self, tokenized: Sequence[TokenizedText]) -> npt.NDArray[np.float32]:
        """Return logits of shape [texts, labels]."""
        token_ids, attention_mask = pad_token_ids(tokenized, pad_token_id=self._pad_token_id)
        (logits,) = self._session.run(["logits"], {"input_ids": token_ids, "attention_mask": attention_mask})
        return np.asarray(logits, dtype=np.float32)


def onnx_inference(
    bundle: ModelBundle,
    *,
    threads: int,
    max_padded_tokens: int,
    max_texts: int,
    cache_texts: int,
    watch: InferenceWatch | None = None,
) -> InferenceExecutor:
    """Return the bundle's classifier with a thread and a cache of its own; 0 turns the cache off."""
    return InferenceExecutor(
        OnnxClassifier(bundle, threads=threads),
        max_padded_tokens=max_padded_tokens,
        max_texts=max_texts,
        cache=TextCache(model_digest=bundle.digest, max_texts=cache_texts),
        watch=watch,
    )
