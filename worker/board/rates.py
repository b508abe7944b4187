"""Rates of the last minutes: messages a second, the share of each tone, and the latency from message to label."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import quantiles

RATE_WINDOW_S = 60
TONE_WINDOW_S = 600
LATENCY_WINDOW_S = 300
_SLOT_S = 10
_MAX_LATENCIES = 4000
_MIN_FOR_QUANTILES = 2


@dataclass(frozen=True, slots=True)
class RatesNow:
    """The rates at a moment; percentiles are None while nothing was labelled lately."""

    messages_per_s: float
    tones: Mapping[str, int]
    latency_p50_s: float | None
    latency_p95_s: float | None


@dataclass(slots=True)
class Rates:
    """Counts what was labelled, by when it was labelled. Keeps ten minutes and never more than a few thousand numbers."""

    _messages: Counter[int] = field(default_factory=Counter)
    _tones: dict[int, Counter[str]] = field(default_factory=dict)
    _latencies: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MAX_LATENCIES))

    def count(self, tone: str | None, *, labelled_s: float, latency_s: float, now_s: float) -> None:
        """Take in one label; `tone` is None for a message that is not a client's."""
        if labelled_s < now_s - TONE_WINDOW_S:
            return
        self._messages[int(labelled_s)] += 1
        if tone is not None:
            self._tones.setdefault(int(labelled_s) // _SLOT_S, Counter())[tone] += 1
        self._latencies.append((labelled_s, max(0.0, latency_s)))
        if len(self._messages) > 2 * TONE_WINDOW_S:
            self._forget(now_s)

    def at(self, now_s: float) -> RatesNow:
        """Return the rates at `now_s`."""
        self._forget(now_s)
        recent = sum(count for second, count in self._messages.items() if now_s - RATE_WINDOW_S <= second <= now_s)
        latencies = [latency for labelled_s, latency in self._latencies if labelled_s >= now_s - LATENCY_WINDOW_S]
        p50, p95 = _percentiles(latencies)
        return RatesNow(recent / RATE_WINDOW_S, sum(self._tones.values(), Counter()), p50, p95)

    def _forget(self, now_s: float) -> None:
        oldest_s = now_s - TONE_WINDOW_S
        for second in [each for each in self._messages if each < oldest_s]:
            del self._messages[second]
        for slot in [each for each in self._tones if (each + 1) * _SLOT_S < oldest_s]:
            del self._tones[slot]


def _percentiles(latencies: list[float]) -> tuple[float | None, float | None]:
    if len(latencies) < _MIN_FOR_QUANTILES:
        return (latencies[0], latencies[0]) if latencies else (None, None)
    cuts = quantiles(latencies, n=20, method="inclusive")
    return cuts[9], cuts[18]
