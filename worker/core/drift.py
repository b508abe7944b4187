"""How far the emotions heard of late are from those of a baseline: the population stability index.

PSI = Σ (now − then) · ln(now / then) over the parts of a distribution, each a share: never negative, 0 for equal shares, the
same in both directions. It comes from credit scoring (Siddiqi, "Credit Risk Scorecards", 2006), and so do the bands it is read
by: under 0.1 nothing to see, up to 0.25 worth a look, above that another population.
"""

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from worker.core.labels import GOEMOTIONS_LABELS

# Half a message more in every part, of the side with fewer: a part that is empty on one side would make the index infinite.
_HALF = 0.5
_DECIMALS = 6
_NEARLY_ALL = 0.999  # the shares are rounded

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Of so many messages, how many were given each label, several perhaps, and how many none."""

    messages: int
    given: Mapping[str, float]
    unlabelled: float


class LabelBaseline(BaseModel):
    """How often the model gives each label to ordinary messages, to measure drift against."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str = Field(description="what messages those were")
    messages: int = Field(ge=1)
    shares: dict[str, Share] = Field(description="label to the share of messages that were given it")
    unlabelled: Share = Field(description="share of messages without a label")

    @field_validator("shares")
    @classmethod
    def _check_labels(cls, shares: dict[str, float]) -> dict[str, float]:
        if set(shares) != set(GOEMOTIONS_LABELS):
            raise ValueError("must have exactly one entry a label")
        return shares

    @model_validator(mode="after")
    def _check_sum(self) -> "LabelBaseline":
        if sum(self.shares.values()) + self.unlabelled < _NEARLY_ALL:
            raise ValueError("shares and unlabelled must come to 1 or more: every message has a label or none")
        return self

    def counts(self) -> LabelCounts:
        """Return the shares as counts of messages."""
        given = {label: share * self.messages for label, share in self.shares.items()}
        return LabelCounts(self.messages, given, self.unlabelled * self.messages)


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
    now_total, then_total = sum(now), sum(then)
    least = _HALF / min(now_total, then_total)  # the same share on both sides: of equal shares nothing must remain
    index = 0.0
    for now_count, then_count in zip(now, then, strict=True):
        now_share, then_share = now_count / now_total + least, then_count / then_total + least
        index += (now_share - then_share) * math.log(now_share / then_share)
    return index / (1.0 + least * len(now))


def baseline_of(counts: LabelCounts, *, source: str) -> LabelBaseline:
    """Return what was counted, of at least one message, as a baseline."""
    return LabelBaseline(
        source=source,
        messages=counts.messages,
        shares={label: round(counts.given.get(label, 0) / counts.messages, _DECIMALS) for label in GOEMOTIONS_LABELS},
        unlabelled=round(counts.unlabelled / counts.messages, _DECIMALS),
    )


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
