"""What a translator must leave alone: placeholders such as [NAME], and emoji.

A translator's vocabulary lacks emoji, and it mangles or translates what stands in brackets. So texts are cut at emoji, and a
placeholder travels as a stand-in that translators copy: a Latin letter and a number. Whether it came back is always checked.
"""

import re
from dataclasses import dataclass

PLACEHOLDER = re.compile(r"\[[A-Z]+(?:_[A-Z]+)*\]")
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u200d\ufe0f\u20e3]+")
PLACEHOLDER_OR_EMOJI = re.compile(f"{PLACEHOLDER.pattern}|{EMOJI.pattern}")

_STAND_IN = "Z"  # no Cyrillic letter looks like it, as they do like X, Y or A
_FOUND_STAND_IN = re.compile(rf"(?<!\w){_STAND_IN}(\d+)(?!\w)")


def placeholders(text: str) -> list[str]:
    """Return the text's placeholders, sorted, since a translation may move them about."""
    return sorted(PLACEHOLDER.findall(text))


def words_alone(text: str) -> str:
    """Return the text without placeholders and emoji, with single spaces."""
    return " ".join(PLACEHOLDER_OR_EMOJI.sub(" ", text).split())


def has_letters(text: str) -> bool:
    """Whether there is anything to translate: a letter outside placeholders."""
    return any(letter.isalpha() for letter in words_alone(text))


@dataclass(frozen=True, slots=True)
class Masked:
    """A text with a stand-in for each of its placeholders, which are given in their order."""

    text: str
    placeholders: tuple[str, ...]


def mask(text: str) -> Masked:
    """Put Z1, Z2 and so on for the placeholders, set off by spaces from letters and digits beside them."""
    kept: list[str] = []

    def stand_in(found: re.Match[str]) -> str:
        kept.append(found[0])
        before = " " if text[: found.start()][-1:].isalnum() or text[: found.start()].endswith("]") else ""
        after = " " if text[found.end() :][:1].isalnum() else ""
        return f"{before}{_STAND_IN}{len(kept)}{after}"

    return Masked(PLACEHOLDER.sub(stand_in, text), tuple(kept))


def restore(translation: str, masked: Masked) -> str | None:
    """Put the placeholders back; None unless every stand-in came back exactly once and no other did."""
    found = sorted(int(number) for number in _FOUND_STAND_IN.findall(translation))
    if not masked.placeholders:
        return translation
    if found != list(range(1, len(masked.placeholders) + 1)):
        return None
    return _FOUND_STAND_IN.sub(lambda stand_in: masked.placeholders[int(stand_in[1]) - 1], translation)


def cut(text: str, at: re.Pattern[str]) -> list[str]:
    """Return the text in pieces whose join is the text: what matches `at` stands at the odd places."""
    pieces: list[str] = []
    end = 0
    for found in at.finditer(text):
        pieces += [text[end : found.start()], found[0]]
        end = found.end()
    return [*pieces, text[end:]]
