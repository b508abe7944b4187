"""How far the emotions heard of late are from those of a baseline: the population stability index.

PSI = Σ (now − then) · ln(now / then) over the parts of a distribution, each a share: never negative, 0 for equal shares, the
same in both directions. It comes from credit scoring (Siddiqi, "Credit Risk Scorecards", 2006), and so do the bands it is read
by: under 0.1 nothing to see, up to 0.25 worth a look, above that another population.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

# Half a message more in every part: a part that is empty on one side would make the index infinite.
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Of so many messages, how many were given each label, several perhaps, and how many none."""

    messages: int
    given: Mapping[str, float]
    unlabelled: float


def overall_drift(now: LabelCounts, baseline: LabelCounts) -> float:
    """Return the index over one distribution: the share of each label among all that were given; "none" counts as one more.

    Without drift it comes to about 28 · (1/now + 1/baseline) by chance alone, in numbers of messages.
    """
    labels = list(baseline.given)
    return _stability_index(
        [*(now.given.get(label, 0.0) for label in labels), now.unlabelled],
        [*(baseline.given[label] for label in labels), baseline.unlabelled],
    )


def drift_by_label(now: LabelCounts, baseline: LabelCounts) -> dict[str, float]:
    """Return each label's index over two parts: the messages that were given it, and those that were not."""
    found = {}
    for label, then_given in baseline.given.items():
        now_given = now.given.get(label, 0.0)
        found[label] = _stability_index([now_given, now.messages - now_given], [then_given, baseline.messages - then_given])
    return found


def _stability_index(now: Sequence[float], then: Sequence[float]) -> float:
    now_total, then_total = sum(now) + _HALF * len(now), sum(then) + _HALF * len(then)
    index = 0.0
    for now_count, then_count in zip(now, then, strict=True):
        now_share, then_share = (now_count + _HALF) / now_total, (then_count + _HALF) / then_total
        index += (now_share - then_share) * math.log(now_share / then_share)
    return index


class LabelWindow:
    """Counts labels over the newest messages; the oldest leave as new ones come."""

    def __init__(self, size: int) -> None:
        self._newest: deque[tuple[str, ...]] = deque(maxlen=size)
        self._given: dict[str, int] = {}
        self._unlabelled = 0

    def observe(self, labels: Collection[str]) -> None:
        """Take in one message's labels."""
        if len(self._newest) == self._newest.maxlen:
            self._add(self._newest[0], -1)
        self._newest.append(tuple(labels))
        self._add(self._newest[-1], 1)

    def counts(self) -> LabelCounts:
        """Return the counts as they are now."""
        return LabelCounts(len(self._newest), dict(self._given), self._unlabelled)

    def _add(self, labels: tuple[str, ...], change: int) -> None:
        self._unlabelled += change * (not labels)
        for label in labels:
            self._given[label] = self._given.get(label, 0) + change
