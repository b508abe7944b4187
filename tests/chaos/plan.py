"""Which faults a run makes and when: a list that its seed decides."""

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault by its name, and when it is due, seconds after the run began."""

    at_s: float
    name: str


def make_plan(weights: Mapping[str, float], *, seed: int, count: int, duration_s: float) -> list[PlannedFault]:
    """Return `count` faults spread over `duration_s`, earliest first.

    Kinds are drawn by their weights; where `count` allows, every kind occurs. Times are even with a jitter, so that some
    faults come alone and some fall into the middle of another.
    """
    rng = random.Random(f"plan {seed}")
    kinds = sorted(weights, key=lambda name: -weights[name])
    names = kinds[:count]
    names += rng.choices(kinds, weights=[weights[name] for name in kinds], k=count - len(names))
    rng.shuffle(names)
    step_s = duration_s / max(1, count)
    times = sorted((index + rng.uniform(-0.7, 0.7)) * step_s for index in range(count))
    return [PlannedFault(max(0.0, at_s), name) for at_s, name in zip(times, names, strict=True)]
