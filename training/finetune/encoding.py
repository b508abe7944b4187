"""Texts to token ids, and tokens to padded tensors in batches of similar token counts."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, normalizers
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.rows import Row
from training.finetune.noise import add_noise

IntArray = npt.NDArray[np.integer]
_POOL_BATCHES = 50


def load_tokenizer(folder_or_name: str, *, max_tokens: int, fold_case: bool = False) -> Tokenizer:
    """Return a fast tokenizer that cuts at `max_tokens`, special tokens included, and pads nothing.

    With `fold_case` it writes lower case and е for ё first; that is saved with it, so whoever loads it folds too.
    """
    local = Path(folder_or_name) / "tokenizer.json"
    if local.exists():
        tokenizer = Tokenizer.from_file(str(local))
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder_or_name).backend_tokenizer
    if fold_case:
        folding = [normalizers.Lowercase(), normalizers.Replace("ё", "е")]
        present = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([*present, *folding])
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text."""
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def pad(token_ids: Sequence[Sequence[int]], *, pad_id: int) -> dict[str, torch.Tensor]:
    """Return input_ids and attention_mask, int64 [texts, longest]."""
    longest = max(len(ids) for ids in token_ids)
    input_ids = torch.full((len(token_ids), longest), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for index, ids in enumerate(token_ids):
        input_ids[index, : len(ids)] = torch.tensor(ids)
        attention_mask[index, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@dataclass(frozen=True, slots=True)
class Draw:
    """One training example of an epoch: which row, and the seed of its noise (None: the text as it is)."""

    row: int
    noise_seed: int | None


class BucketBatches(Sampler[list[Draw]]):
    """Batches of draws of similar token counts, in an order that the seed and the epoch alone decide.

    Every row is drawn `repeats[row]` times an epoch; a `noise_share` of the rows marked `noisy` get noise. `count_tokens`
    counts a draw as it will be shown: a text in capitals has twice the tokens, and one such pads its whole batch.
    """

    def __init__(
        self,
        count_tokens: Callable[[Draw], int],
        *,
        batch_size: int,
        seed: int,
        repeats: IntArray,
        noisy: npt.NDArray[np.bool_],
        noise_share: float,
    ) -> None:
        self._count_tokens = count_tokens
        self._batch_size = batch_size
        self._seed = seed
        self._rows = np.repeat(np.arange(len(repeats)), repeats)
        self._noisy = noisy
        self._noise_share = noise_share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        chance = random.Random(self._seed * 1_000_003 + self._epoch)  # noqa: S311 - shuffling, not cryptography
        rows: list[int] = self._rows.tolist()
        chance.shuffle(rows)
        pool = self._batch_size * _POOL_BATCHES
        for start in range(0, len(rows), pool):
            draws = [Draw(row, self._noise_seed(row, chance)) for row in rows[start : start + pool]]
            draws.sort(key=self._count_tokens)
            batches = [draws[at : at + self._batch_size] for at in range(0, len(draws), self._batch_size)]
            chance.shuffle(batches)
            yield from batches

    def _noise_seed(self, row: int, chance: random.Random) -> int | None:
        seed = chance.getrandbits(32)
        return seed if self._noisy[row] and chance.random() < self._noise_share else None


class TrainingRows(Dataset[dict[str, Any]]):
    """Token ids and targets of a draw. `targets` are arrays whose first axis is the rows."""

    def __init__(self, rows: Sequence[Row], *, tokenizer: Tokenizer, targets: dict[str, npt.NDArray[Any]]) -> None:
        self._texts = [row.text for row in rows]
        self._tokenizer = tokenizer
        self._targets = targets
        self._token_ids = encode(tokenizer, self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return {"token_ids": self._drawn(draw), **{name: values[draw.row] for name, values in self._targets.items()}}

    def count_tokens(self, draw: Draw) -> int:
        """Return the token count of a draw, its noise included."""
        return len(self._drawn(draw))

    def _drawn(self, draw: Draw) -> list[int]:
        if draw.noise_seed is None:
            return self._token_ids[draw.row]
        token_ids: list[int] = self._tokenizer.encode(add_noise(self._texts[draw.row], seed=draw.noise_seed)).ids
        return token_ids


class TrainingBatches(DataLoader[Any]):
    """The loader of training batches; passes the epoch on to its `BucketBatches`, which makes runs resumable."""

    def __init__(self, rows: TrainingRows, batches: BucketBatches, *, pad_id: int) -> None:
        super().__init__(rows, batch_sampler=batches, collate_fn=_Collate(pad_id))
        self._batches = batches

    def set_epoch(self, epoch: int) -> None:
        self._batches.set_epoch(epoch)


@dataclass(frozen=True, slots=True)
class _Collate:
    pad_id: int

    def __call__(self, drawn: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tensors = pad([each.pop("token_ids") for each in drawn], pad_id=self.pad_id)
        for name in drawn[0]:
            tensors[name] = torch.from_numpy(np.stack([each[name] for each in drawn]).astype(np.float32))
        return tensors


def batches_by_token_count(token_ids: Sequence[Sequence[int]], *, batch_size: int) -> Iterator[list[int]]:
    """Yield row numbers, longest texts first, so that running out of memory shows at once."""
    order = sorted(range(len(token_ids)), key=lambda row: -len(token_ids[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
