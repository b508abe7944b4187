"""Chat noise: a clean Russian text as a hurried client would type it. The meaning, and so the labels, stay.

`add_noise` mixes the kinds at random, for training; `noised` does one of them wholly, for measuring what it costs.
"""

import random
import re

_ROWS = ("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю")
NEIGHBOURS = {
    letter: (row[index - 1] if index else "") + (row[index + 1] if index + 1 < len(row) else "")
    for row in _ROWS
    for index, letter in enumerate(row)
}
_PUNCTUATION = re.compile(r"(?<=\w)[.,;:!?…—–\-\"«»()]+(?=\s|$)|[«»\"()]")
_MARKS = re.compile(r"(?<!\d)[.,;:!?…—–«»\"()]+|[.,;:!?…—–«»\"()]+(?!\d)")
_MIN_WORD = 4
_TRIES = 8

NOISE_KINDS = ("typos", "no_punctuation", "caps", "no_yo")


def add_noise(text: str, *, seed: int) -> str:
    """Return the text with one or two kinds of chat noise; the same seed gives the same text.

    Question and exclamation marks go in only half of the cases, since they carry tone.
    """
    chance = random.Random(seed)  # noqa: S311 - augmentation, not cryptography
    kinds = chance.choices((_drop_punctuation, _lower, _shout, _flatten_yo, _typo), weights=(30, 25, 12, 12, 40), k=2)
    for kind in dict.fromkeys(kinds[: chance.choice((1, 2))]):
        text = kind(text, chance)
    return text


def noised(text: str, kind: str, *, seed: int) -> str:
    """Return the text with one of `NOISE_KINDS`; unchanged where it has nothing to spoil.

    `typos` are one or two, `no_punctuation` leaves marks inside numbers and words, `no_yo` writes е for ё.
    """
    chance = random.Random(seed)  # noqa: S311 - as above
    if kind == "typos":
        copies = (_typo(text, chance) for _ in range(_TRIES))  # some draws change nothing
        return next((copy for copy in copies if copy != text), text)
    if kind == "no_punctuation":
        return re.sub(r"\s+", " ", _MARKS.sub(" ", text)).strip() or text
    return _shout(text, chance) if kind == "caps" else _flatten_yo(text, chance)


def _drop_punctuation(text: str, chance: random.Random) -> str:
    if chance.random() < 0.5:
        return _PUNCTUATION.sub("", text)
    return re.sub(r"[.,;:…—–«»\"]", "", text)


def _lower(text: str, _chance: random.Random) -> str:
    return text.lower()


def _shout(text: str, _chance: random.Random) -> str:
    return text.upper()


def _flatten_yo(text: str, _chance: random.Random) -> str:
    return text.replace("ё", "е").replace("Ё", "Е")


def _typo(text: str, chance: random.Random) -> str:
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) >= _MIN_WORD and word.isalpha()]
    for index in chance.sample(long, k=min(len(long), chance.choice((1, 1, 2)))):
        words[index] = _spoil(words[index], chance)
    return " ".join(words)


def _spoil(word: str, chance: random.Random) -> str:
    """Change one letter after the first: a neighbouring key, dropped, doubled, or swapped with the one before."""
    at = chance.randrange(1, len(word))
    kind = chance.randrange(4)
    if kind == 0:
        near = NEIGHBOURS.get(word[at].lower(), "")
        return word[:at] + (chance.choice(near) if near else word[at]) + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :] if at > 1 else word
