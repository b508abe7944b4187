"""The translator: MarianMT by Transformers, from the Hub or a folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from tqdm import tqdm
from transformers import MarianMTModel, MarianTokenizer

from training.config import ConfigError, TranslationConfig
from training.finetune.encoding import batches_by_token_count
from worker.inference.model_bundle import file_digest

TOO_LONG = "too_long"
UNFINISHED = "unfinished"

_NEEDED = ("config.json", "source.spm", "target.spm", "vocab.json")
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model made of a text, and what kept it from the whole text, if anything did."""

    text: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder, and what changes whenever its weights do: the Hub's commit, or a digest of the weights."""

    folder: Path
    revision: str


def find_model(name: str) -> ModelFiles:
    """Return the files of a local folder, or of a model on the Hub, which are downloaded where need be."""
    if Path(name).is_dir():
        return ModelFiles(Path(name), _weights_digest(Path(name)))
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*_NEEDED, "*.json", *_WEIGHTS]))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"can't load translation.model {name!r}: go online for the Hub, or give the folder of a MarianMT model ({error})"
        ) from error
    return ModelFiles(folder, folder.name)


class MarianTranslator:
    """Translates texts in batches of similar token counts, in half precision on a GPU; the same texts give the same answers."""

    def __init__(self, files: ModelFiles, config: TranslationConfig) -> None:
        missing = [name for name in _NEEDED if not (files.folder / name).exists()]
        if missing:
            raise ConfigError(f"{files.folder} is no MarianMT model, it lacks {', '.join(missing)}; mend translation.model")
        self._config = config
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.float16 if self._device.type == "cuda" else torch.float32
        self._tokenizer = MarianTokenizer.from_pretrained(files.folder)
        self._model = MarianMTModel.from_pretrained(files.folder, dtype=dtype).to(self._device).eval()

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """Translate; a text over the token limit is not tried, and one whose translation reached it is called unfinished."""
        token_ids = [self._tokenizer(self._tokenizer.normalize(text))["input_ids"] for text in texts]
        answers = [Answer("", TOO_LONG)] * len(texts)
        short = [index for index, ids in enumerate(token_ids) if len(ids) <= self._config.max_tokens]
        batches = batches_by_token_count([token_ids[index] for index in short], batch_size=self._config.batch_size)
        for batch in tqdm(list(batches), desc="batches", leave=False):
            rows = [short[each] for each in batch]
            for row, answer in zip(rows, self._generate([token_ids[row] for row in rows]), strict=True):
                answers[row] = answer
        return answers

    def _generate(self, token_ids: list[list[int]]) -> list[Answer]:
        inputs = self._tokenizer.pad({"input_ids": token_ids}, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            written = self._model.generate(
                **inputs, num_beams=self._config.beams, do_sample=False, max_new_tokens=self._config.max_tokens
            )
        new_tokens = written[:, 1:]  # after the start token, which is the padding's
        is_cut = ((new_tokens != self._tokenizer.pad_token_id).sum(1) >= self._config.max_tokens).tolist()
        texts = self._tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        return [Answer(text.strip(), UNFINISHED if cut else None) for text, cut in zip(texts, is_cut, strict=True)]


def _weights_digest(folder: Path) -> str:
    found = [path for pattern in _WEIGHTS for path in sorted(folder.glob(pattern))]
    if not found:
        raise ConfigError(f"{folder} has no weights ({' or '.join(_WEIGHTS)}); mend translation.model")
    return hashlib.sha256("".join(map(file_digest, found)).encode()).hexdigest()
