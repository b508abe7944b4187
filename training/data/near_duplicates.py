"""Texts that are nearly the same: Jaccard similarity of their letter 5-grams, exact, by prefix filtering.

Two sets of similarity t share one of their rarest grams: of a set of n, the n - ceil(t·n) + 1 rarest are enough to look at
(Chaudhuri et al. 2006, "A Primitive Operator for Similarity Joins"; Bayardo et al. 2007, "Scaling Up All Pairs Similarity
Search"). Rare grams have few texts each, so sixty thousand texts take seconds.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from tqdm import tqdm

from training.data.clean import text_key

GRAM = 5
SHORT = 20
"""Letters of a text's key below which only the same key is near: a word more or less makes another message of a short one."""

_BLOCK = 2000  # texts compared at once, which bounds memory

IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of near texts: numbers of the first and of the second text of each."""

    first: IntArray
    second: IntArray


def are_near_any(texts: Sequence[str], others: Sequence[str], *, similarity: float) -> npt.NDArray[np.bool_]:
    """Return for each text whether one of the others is its like by key, or at least this similar if both are long enough."""
    keys, other_keys = [text_key(text) for text in texts], list(dict.fromkeys(text_key(text) for text in others))
    seen = set(other_keys)
    near = np.array([key in seen for key in keys], dtype=bool)
    grams = _grams([*keys, *other_keys])
    for pairs in _near_pairs(grams[: len(keys)], grams[len(keys) :], similarity=similarity):
        near[pairs.first] = True
    return near


def near_repeats(texts: Sequence[str], groups: Sequence[Hashable], *, similarity: float) -> npt.NDArray[np.bool_]:
    """Return for each text whether it is near one of the same group that stands earlier and is no repeat itself."""
    keys = [text_key(text) for text in texts]
    grams = _grams(keys)
    earlier: dict[int, list[int]] = {}
    for pairs in _near_pairs(grams, grams, similarity=similarity):
        for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
            if other < one and groups[one] == groups[other]:
                earlier.setdefault(one, []).append(other)
    repeats = np.zeros(len(texts), dtype=bool)
    kept: set[tuple[str, Hashable]] = set()
    for index, (key, group) in enumerate(zip(keys, groups, strict=True)):
        repeats[index] = (key, group) in kept or any(not repeats[other] for other in earlier.get(index, ()))
        if not repeats[index]:
            kept.add((key, group))
    return repeats


def _grams(keys: Sequence[str]) -> csr_matrix:
    """Return which grams each key has, 0/1 [keys, grams], rarest gram first; short keys have none."""
    vectorizer = CountVectorizer(analyzer=_grams_of, binary=True, dtype=np.int32)
    if not any(_grams_of(key) for key in keys):
        return csr_matrix((len(keys), 1), dtype=np.int32)
    found = vectorizer.fit_transform(keys)
    frequency = np.bincount(found.indices, minlength=found.shape[1])
    rank = np.empty_like(frequency)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    ranked = csr_matrix((found.data, rank[found.indices], found.indptr), shape=found.shape)
    ranked.sort_indices()
    return ranked


def _grams_of(key: str) -> list[str]:
    return [key[at : at + GRAM] for at in range(len(key) - GRAM + 1)] if len(key) >= SHORT else []


def _near_pairs(grams: csr_matrix, others: csr_matrix, *, similarity: float) -> Iterator[NearPairs]:
    counts, other_counts = np.diff(grams.indptr), np.diff(others.indptr)
    rarest = _rarest(others, similarity=similarity).T.tocsr()
    prefixes = _rarest(grams, similarity=similarity)
    for start in tqdm(range(0, grams.shape[0], _BLOCK), desc="near duplicates", leave=False):
        candidates = (prefixes[start : start + _BLOCK] @ rarest).tocoo()
        first, second = candidates.row + start, candidates.col
        smaller, larger = np.minimum(counts[first], other_counts[second]), np.maximum(counts[first], other_counts[second])
        fits = smaller >= similarity * larger
        first, second = first[fits], second[fits]
        for at in range(0, len(first), _BLOCK * 10):
            one, other = first[at : at + _BLOCK * 10], second[at : at + _BLOCK * 10]
            shared = np.asarray(grams[one].multiply(others[other]).sum(1)).ravel()
            near = shared >= similarity * (counts[one] + other_counts[other] - shared)
            yield NearPairs(one[near], other[near])


def _rarest(grams: csr_matrix, *, similarity: float) -> csr_matrix:
    """Keep of each text the rarest grams that suffice to find every near one."""
    counts = np.diff(grams.indptr)
    kept = counts - np.ceil(similarity * counts - 1e-9).astype(np.int64) + 1
    place = np.arange(grams.nnz) - np.repeat(grams.indptr[:-1], counts)
    is_kept = place < np.repeat(kept, counts)
    indptr = np.concatenate([[0], np.cumsum(np.minimum(kept, counts))])
    return csr_matrix((grams.data[is_kept], grams.indices[is_kept], indptr), shape=grams.shape)
