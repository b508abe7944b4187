"""Cleaning, exact de-duplication, and the key by which texts count as the same."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace

from training.data.rows import Row

_INVISIBLE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u00ad\u200b\u2060\ufeff]")
_SPACES = re.compile(r"\s+")
_NOT_WORDS = re.compile(r"[\W_]+")


def clean_text(text: str) -> str:
    """Return the text in NFC, without invisible characters, with single spaces."""
    return _SPACES.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFC", text))).strip()


def clean_rows(rows: Iterable[Row]) -> list[Row]:
    """Clean every text and drop the empty ones."""
    cleaned = (replace(row, text=clean_text(row.text)) for row in rows)
    return [row for row in cleaned if row.text]


def drop_duplicates(rows: Iterable[Row]) -> list[Row]:
    """Keep the first of rows equal in text and labels.

    The same short text with other labels stays: it is another comment, and how annotators differ is part of the truth.
    """
    first: dict[tuple[str, tuple[str, ...]], Row] = {}
    for row in rows:
        first.setdefault((row.text, row.labels), row)
    return list(first.values())


def text_key(text: str) -> str:
    """Return what two texts share if they differ only in case, punctuation, ё or spaces."""
    words = _NOT_WORDS.sub(" ", text.casefold().replace("ё", "е")).strip()
    return words or text
