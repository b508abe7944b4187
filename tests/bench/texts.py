"""The texts that everything is measured on: as long as the test split's, and a chat-like mix in which short ones repeat.

The words come from the support corpus, which is in the repository; the lengths are those of the Russian test split, whose
percentiles are in test_split_lengths.json. The same seed gives the same texts.
"""

import bisect
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tests.support.worker_process import ROOT

_LENGTHS = Path(__file__).with_name("test_split_lengths.json")
_SHORT = 24  # characters up to which a corpus message may repeat in the Zipf mix
_REPEATING_SHARE = 0.5
_ZIPF_EXPONENT = 1.1
_ZIPF_TEXTS = 200


def split_length_texts(count: int, *, seed: int = 1) -> list[str]:
    """Return texts that are all different, with the test split's lengths in characters."""
    chance = random.Random(seed)
    percentiles = json.loads(_LENGTHS.read_text("utf-8"))["characters"]
    words = _words(chance)
    return [_text_of(words, _interpolated(percentiles, chance.random())) for _ in range(count)]


def zipf_texts(count: int, *, seed: int = 2) -> list[str]:
    """Return a chat-like mix: half of it short messages that repeat by Zipf's law, the rest as `split_length_texts`."""
    chance = random.Random(seed)
    short = sorted({each for each in _corpus() if len(each) <= _SHORT})
    chance.shuffle(short)
    weights = list(itertools.accumulate(1 / rank**_ZIPF_EXPONENT for rank in range(1, min(_ZIPF_TEXTS, len(short)) + 1)))
    others = iter(split_length_texts(count, seed=seed))

    def one() -> str:
        if chance.random() >= _REPEATING_SHARE:
            return next(others)
        return short[bisect.bisect(weights, chance.random() * weights[-1])]

    return [one() for _ in range(count)]


def texts_of_characters(count: int, characters: int, *, seed: int = 3) -> list[str]:
    """Return texts that are all different and about so many characters long."""
    words = _words(random.Random(seed))
    return [_text_of(words, characters) for _ in range(count)]


def _corpus() -> list[str]:
    paths = sorted((ROOT / "training" / "corpus").glob("*.jsonl"))
    return [json.loads(line)["text"] for path in paths for line in path.read_text("utf-8").splitlines()]


def _words(chance: random.Random) -> Iterator[str]:
    messages = _corpus()
    while True:
        chance.shuffle(messages)
        for message in messages:
            yield from message.split()


def _text_of(words: Iterator[str], characters: int) -> str:
    text = next(words)
    while len(text) < characters:
        text = f"{text} {next(words)}"
    return text[: max(characters, 1)].strip() or "ок"


def _interpolated(percentiles: list[int], place: float) -> int:
    at = place * (len(percentiles) - 1)
    low = int(at)
    high = min(low + 1, len(percentiles) - 1)
    return round(percentiles[low] + (percentiles[high] - percentiles[low]) * (at - low))
