"""The classifier for those with a GPU, and the reference that the ONNX graph is compared with. Needs the extra `gpu`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.core.failures import ModelBundleError
from worker.inference.classifier import TokenizedText
from worker.inference.model_bundle import SAFETENSORS_NAME, TOKENIZER_NAME, ModelBundle
from worker.inference.tokenizer import BundleTokenizer, pad_token_ids


class TorchClassifier:
    """Runs a bundle's model.safetensors as a BertForSequenceClassification, in float32, on a torch device."""

    def __init__(self, bundle: ModelBundle, *, device: str = "cpu") -> None:
        try:
            import torch
            from safetensors.torch import load
            from transformers import BertConfig, BertForSequenceClassification
        except ImportError as error:
            raise ModelBundleError(f"{error.name} is not installed: pip install 'rugo-worker[gpu]'") from error
        if SAFETENSORS_NAME not in bundle.manifest.files:
            raise ModelBundleError(f"{bundle.folder} has no {SAFETENSORS_NAME}: this bundle runs on ONNX only")
        self._torch: Any = torch
        self._device = device
        self._pad_token_id = bundle.manifest.pad_token_id
        self._tokenizer = BundleTokenizer(bundle.read(TOKENIZER_NAME), max_tokens=bundle.manifest.max_tokens)
        model = BertForSequenceClassification(BertConfig.from_dict(bundle.manifest.architecture))
        weights = load(bundle.read(SAFETENSORS_NAME))
        model.load_state_dict({name: each.float() for name, each in weights.items()}, strict=True)
        self._model = model.to(device).eval()

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Return the tokens of each text, in order."""
        return self._tokenizer.tokenize(texts)

    def logits(self, tokenized: Sequence[TokenizedText]) -> npt.NDArray[np.float32]:
        """Return logits of shape [texts, labels]."""
        token_ids, attention_mask = pad_token_ids(tokenized, pad_token_id=self._pad_token_id)
        with self._torch.inference_mode():
            output = self._model(
                input_ids=self._torch.from_numpy(token_ids).to(self._device),
                attention_mask=self._torch.from_numpy(attention_mask).to(self._device),
            )
        return np.asarray(output.logits.float().cpu().numpy(), dtype=np.float32)
