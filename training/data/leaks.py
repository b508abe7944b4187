"""Which rows may be trained on: no repeats, and nothing that is, or nearly is, what must stay unseen."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from training.data.clean import clean_rows, drop_duplicates, text_key
from training.data.near_duplicates import are_near_any, near_repeats
from training.data.rows import Row


@dataclass(frozen=True, slots=True)
class Unseen:
    """What train rows must not hold: texts that are scored, their comments, and texts reserved as examples."""

    texts: Sequence[str]
    comment_ids: Collection[str]
    reserved: Sequence[str] = ()


def sift_train(rows: Sequence[Row], unseen: Unseen, *, similarity: float) -> tuple[list[Row], dict[str, int]]:
    """Clean the rows and return those that may be trained on, in order, and how many were dropped for each reason.

    A row is counted under the first reason that holds. Near duplicates are repeats with the same labels. Rows without a
    comment id are told by their text alone.
    """
    cleaned = clean_rows(rows)
    kept = drop_duplicates(cleaned)
    dropped = {"empty": len(rows) - len(cleaned), "duplicates": len(cleaned) - len(kept)}

    def keep(reason: str, is_dropped: Sequence[bool]) -> list[Row]:
        dropped[reason] = sum(is_dropped)
        return [row for row, is_out in zip(kept, is_dropped, strict=True) if not is_out]

    exact = {text_key(text) for text in unseen.texts}
    kept = keep("reserved", _near(kept, unseen.reserved, similarity))
    kept = keep("comment_id_leaks", [bool(row.comment_id) and row.comment_id in unseen.comment_ids for row in kept])
    kept = keep("exact_leaks", [text_key(row.text) in exact for row in kept])
    kept = keep("near_leaks", _near(kept, unseen.texts, similarity))
    kept = keep("near_duplicates", near_repeats([row.text for row in kept], _labels(kept), similarity=similarity).tolist())
    return kept, dropped


def _near(rows: Sequence[Row], texts: Sequence[str], similarity: float) -> list[bool]:
    found: list[bool] = are_near_any([row.text for row in rows], texts, similarity=similarity).tolist()
    return found


def _labels(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [row.labels for row in rows]
