"""How varied a corpus is: `python -m training variety`. A corpus of one sentence in a thousand dresses teaches one sentence.

Distinct word trigrams (after Li et al. 2016's distinct-n), how like each text is to its nearest neighbour, and the shares of
forms, voices, authors and labels.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.config import ConfigError

_WORD = re.compile(r"\w+")
_ROWS_AT_ONCE = 1000
_SHARES = ("form", "voice", "author", "domain")
_FIELDS = ("text", "labels", "scenario", *_SHARES)
NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Variety:
    """Figures of a corpus.

    `distinct_trigrams` is the share of word trigrams that are no repeat of an earlier one; `neighbours` the cosine
    similarity of each text to the most like other one, [texts]; `shares` the share of rows by value, for each field.
    """

    rows: int
    scenarios: int
    words: float
    distinct_trigrams: float
    neighbours: npt.NDArray[np.float64]
    shares: dict[str, dict[str, float]]


def read_corpus(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of every JSONL file in the folder."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            rows += [json.loads(line) for line in file]
    if not rows:
        raise ConfigError(f"no *.jsonl with rows in {folder}; give --corpus the folder of a corpus")
    lacking = {name for row in rows for name in _FIELDS if name not in row}
    if lacking:
        raise ConfigError(f"rows in {folder} lack {', '.join(sorted(lacking))}; see training/corpus for rows with every field")
    return rows


def measure_variety(rows: Sequence[dict[str, Any]]) -> Variety:
    """Measure rows with `text`, `labels`, `scenario`, `form`, `voice`, `author` and `domain`."""
    texts = [row["text"] for row in rows]
    words = [_WORD.findall(text.casefold().replace("ё", "е")) for text in texts]
    trigrams = [tuple(each[at : at + 3]) for each in words for at in range(len(each) - 2)]
    fields: dict[str, list[str]] = {name: [row[name] for row in rows] for name in _SHARES}
    fields["label"] = [label for row in rows for label in row["labels"]]
    shares = {name: {value: n / len(rows) for value, n in Counter(values).most_common()} for name, values in fields.items()}
    return Variety(
        rows=len(rows),
        scenarios=len({row["scenario"] for row in rows}),
        words=float(np.mean([len(each) for each in words])),
        distinct_trigrams=len(set(trigrams)) / max(1, len(trigrams)),
        neighbours=nearest_similarities(texts),
        shares=shares,
    )


def nearest_similarities(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return each text's cosine similarity to the most like other one, by tf-idf of character 3- to 5-grams, [texts]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(texts)
    nearest = np.zeros(len(texts))
    for start in tqdm(range(0, len(texts), _ROWS_AT_ONCE), desc="neighbours", leave=False):
        similarities = (vectors[start : start + _ROWS_AT_ONCE] @ vectors.T).toarray()
        rows = np.arange(len(similarities))
        similarities[rows, start + rows] = 0.0
        nearest[start + rows] = similarities.max(1)
    return nearest


def render_variety(variety: Variety) -> str:
    """Return the figures in Markdown."""
    median, high = np.percentile(variety.neighbours, [50, 95])
    lines = [
        f"- {variety.rows:,} messages in {variety.scenarios} scenarios, {variety.words:.1f} words on average",
        f"- distinct word trigrams: {variety.distinct_trigrams:.1%}",
        f"- similarity to the nearest other message: median {median:.2f}, 95th percentile {high:.2f}, "
        f"above {NEAR}: {(variety.neighbours > NEAR).mean():.2%}",
    ]
    for name, shares in variety.shares.items():
        lines.append(f"- by {name}: " + ", ".join(f"{value} {share:.1%}" for value, share in shares.items()))
    return "\n".join(lines) + "\n"
