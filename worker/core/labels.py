"""The 28 GoEmotions labels, their tone groups, and the tone that a set of labels gives.

Labels and groups: Demszky et al. 2020, "GoEmotions: A Dataset of Fine-Grained Emotions".
The order here is GoEmotions' own; the order of a model's logits is the bundle's manifest's alone.
"""

from collections.abc import Iterable
from typing import Literal

Tone = Literal["negative", "positive", "mixed", "ambiguous", "neutral"]

POSITIVE = frozenset("admiration amusement approval caring desire excitement gratitude joy love optimism pride relief".split())
NEGATIVE = frozenset(
    "anger annoyance disappointment disapproval disgust embarrassment fear grief nervousness remorse sadness".split()
)
AMBIGUOUS = frozenset("confusion curiosity realization surprise".split())
NEUTRAL = "neutral"

GOEMOTIONS_LABELS: tuple[str, ...] = tuple(
    "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval "
    "disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief "
    "remorse sadness surprise neutral".split()
)


def tone_of(labels: Iterable[str]) -> Tone:
    """Return the tone that the labels' groups give.

    Negative and positive decide before ambiguous does; neutral alone, or nothing, is `neutral`.
    """
    present = frozenset(labels)
    is_negative = not present.isdisjoint(NEGATIVE)
    is_positive = not present.isdisjoint(POSITIVE)
    if is_negative and is_positive:
        return "mixed"
    if is_negative:
        return "negative"
    if is_positive:
        return "positive"
    return "neutral" if present.isdisjoint(AMBIGUOUS) else "ambiguous"
