"""Which translations can be trained on: each fault has a name, and a text with one is left out and counted."""

import re

from training.config import TranslationConfig
from training.translation.kept_parts import has_letters, placeholders, words_alone

EMPTY = "empty"
PLACEHOLDERS_LOST = "placeholders_lost"
UNTRANSLATED = "untranslated"
REPEATED = "repeated_tokens"
LENGTH_RATIO = "length_ratio"

_SLACK = 15  # letters: a short text may well grow or shrink several times over ("ok" is «хорошо»)
_LONGEST_PERIOD = 6
_WORD = re.compile(r"[\w'’-]+")
_CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)


def fault_of(source: str, translation: str, limits: TranslationConfig) -> str | None:
    """Return why the translation can't be used, None where it can.

    A source without letters of its own (numbers, placeholders, emoji) is its own translation.
    """
    if not translation.strip():
        return EMPTY
    if placeholders(source) != placeholders(translation):
        return PLACEHOLDERS_LOST
    source, translation = words_alone(source), words_alone(translation)
    if not has_letters(source):
        return None
    if source.casefold() == translation.casefold() or cyrillic_share(translation) < limits.min_cyrillic:
        return UNTRANSLATED
    if longest_repeat(translation) > max(limits.max_repeated, longest_repeat(source)):
        return REPEATED
    if not limits.min_length_ratio <= length_ratio(source, translation) <= limits.max_length_ratio:
        return LENGTH_RATIO
    return None


def cyrillic_share(text: str) -> float:
    """Return the share of Cyrillic among the letters; 0 where there are none."""
    letters = [letter for letter in text if letter.isalpha()]
    return len(_CYRILLIC.findall("".join(letters))) / len(letters) if letters else 0.0


def longest_repeat(text: str) -> int:
    """Return how often a word or phrase of up to six words stands in a row at most; 0 where there are no words.

    What a translator caught in a loop writes: "I don't know, I don't know, I don't know" counts 3.
    """
    words = _WORD.findall(text.casefold())
    return max((_repeats(words, period) for period in range(1, min(_LONGEST_PERIOD, len(words)) + 1)), default=0)


def _repeats(words: list[str], period: int) -> int:
    longest = run = 0
    for word, earlier in zip(words[period:], words, strict=False):
        run = run + 1 if word == earlier else 0
        longest = max(longest, run)
    return longest // period + 1


def length_ratio(source: str, translation: str) -> float:
    """Return translation to source in letters and signs, softened so that short texts may differ more."""
    return (len(translation) + _SLACK) / (len(source) + _SLACK)
