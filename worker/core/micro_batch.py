"""Which texts the model sees at once: length buckets under a budget of padded tokens."""

from collections.abc import Sequence


def plan_micro_batches(token_counts: Sequence[int], *, max_padded_tokens: int, max_texts: int) -> list[tuple[int, ...]]:
    """Return micro-batches of indexes, each index in exactly one of them.

    Texts are grouped by token count, longest first, so that little is padded: a micro-batch costs its longest text's
    token count times its number of texts, and that stays within `max_padded_tokens` unless a single text is over it.
    """
    by_token_count = sorted(range(len(token_counts)), key=lambda index: -token_counts[index])
    micro_batches: list[tuple[int, ...]] = []
    start = 0
    while start < len(by_token_count):
        longest = max(1, token_counts[by_token_count[start]])
        stop = start + max(1, min(max_texts, max_padded_tokens // longest))
        micro_batches.append(tuple(by_token_count[start:stop]))
        start = stop
    return micro_batches
