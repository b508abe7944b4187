"""Unlabelled texts made from a corpus's own: more of the domain for the teacher to speak about.

A small student learns most of what its teacher knows from texts the teacher was not tuned on; data augmentation for
distillation as in Jiao et al. 2020, "TinyBERT". Whatever a variation comes to mean, the teacher is asked anew.
"""

import random
import re
from collections.abc import Iterable, Sequence

from training.data.clean import clean_text, text_key
from training.data.rows import Row

_CLAUSE = re.compile(r"[^.,!?…;:—]+[.,!?…;:—)\s]*")
_WORD_LOSS = 0.15
VARIED = "_varied"


def vary(rows: Sequence[Row], *, count: int, seed: int, unseen: Iterable[str]) -> list[Row]:
    """Return up to `count` variations of every row, without labels, in an order that the seed decides.

    Variations that repeat each other, a row, or an unseen text (by `text_key`) are left out.
    """
    chance = random.Random(seed)  # noqa: S311 - augmentation, not cryptography
    taken = {text_key(text) for text in unseen} | {text_key(row.text) for row in rows}
    varied = []
    for row in rows:
        for _ in range(count):
            text = clean_text(_variation(row.text, chance.choice(rows).text, chance))
            if text and text_key(text) not in taken:
                taken.add(text_key(text))
                varied.append(Row(text, (), row.source + VARIED, row.language, row.comment_id))
    return varied


def _variation(text: str, other: str, chance: random.Random) -> str:
    """Splice a part of the text with a part of another, leave out a clause, or lose words."""
    clauses = _CLAUSE.findall(text)
    kind = chance.random()
    if kind < 0.4:
        parts = [_part(clauses or [text], chance), _part(_CLAUSE.findall(other) or [other], chance)]
        chance.shuffle(parts)
        return " ".join(parts)
    if kind < 0.65 and len(clauses) > 1:
        left_out = chance.randrange(len(clauses))
        return "".join(clause for index, clause in enumerate(clauses) if index != left_out)
    return " ".join(word for word in text.split(" ") if chance.random() > _WORD_LOSS)


def _part(clauses: list[str], chance: random.Random) -> str:
    """Return a run of neighbouring clauses."""
    start = chance.randrange(len(clauses))
    return "".join(clauses[start : start + chance.randint(1, 3)]).strip()
