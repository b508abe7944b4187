"""What a chaos run does: its options, and which faults it makes when, a list that its seed decides."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from tests.chaos.faults import faults_for
from tests.chaos.ledger import Delivery

WORKERS = 3


@dataclass(frozen=True, slots=True)
class Options:
    """What a run does. It breaks things for `minutes` at most; settling and reading back come on top."""

    messages: int
    faults: int
    seed: int
    minutes: float
    delivery: Delivery = "at_least_once"
    workers: int = WORKERS
    mutation: str = ""
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault by its name, and when it is due, seconds after the run began."""

    at_s: float
    name: str


def plan_of(options: Options) -> list[PlannedFault]:
    """Return the faults of a run with these options; a seventh of its time is left for the last ones to end."""
    open_to = faults_for(options.delivery)
    weights: Mapping[str, float] = {name: open_to[name].weight for name in options.kinds or open_to}
    return make_plan(weights, seed=options.seed, count=options.faults, duration_s=options.minutes * 60 * 0.85)


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
