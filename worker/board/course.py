"""How heated a chat is: the course that its client's messages, escalations and changes of operator give, in event time.

Heat, 0..1, moves toward each client message's negativity, is lifted by an escalation to its severity, halves with silence, and
begins anew with another operator. A chat is in trouble from the moment its heat reaches `ENTER` until it falls under `LEAVE`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

ENTER = 0.45  # two harsh messages in a row, or any escalation
LEAVE = 0.3  # three calm messages after the worst escalation, or some 25 minutes of silence
HALF_LIFE_S = 900.0
_FADE = 0.6
_MAX_EXITS = 8

Ending = Literal["calmed", "silent", "handed_over"]


@dataclass(frozen=True, slots=True)
class Takeover:
    """Another operator serves the chat from here on."""

    at_s: float
    operator_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """A client's message."""

    at_s: float
    negativity: float


@dataclass(frozen=True, slots=True)
class Raised:
    """An escalation."""

    at_s: float
    severity: float


Step = Takeover | Message | Raised
_ORDER: tuple[type, ...] = (Takeover, Message, Raised)  # of steps at one moment


@dataclass(frozen=True, slots=True)
class Exit:
    """When and how a chat's trouble ended."""

    at_s: float
    ending: Ending
    taken_by: str | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """Where a chat stands after its latest step, and how its latest troubles ended, oldest first."""

    heat: float = 0.0
    at_s: float = 0.0
    trouble_since_s: float | None = None
    exits: tuple[Exit, ...] = ()

    @property
    def rank(self) -> float:
        """A number by which chats compare as their heats do now; it changes with events only, never with time."""
        return math.log2(self.heat) + self.at_s / HALF_LIFE_S if self.heat > 0.0 else -math.inf


def course_of(steps: Iterable[Step]) -> Course:
    """Return the course of a chat's steps, whatever the order they are given in."""
    course = Course()
    for step in sorted(steps, key=lambda each: (each.at_s, _ORDER.index(type(each)))):
        course = course_after(course, step)
    return course


def course_after(course: Course, step: Step) -> Course:
    """Return the course after a step that is later than all before it."""
    return _take(course_at(course, step.at_s), step)


def course_at(course: Course, now_s: float) -> Course:
    """Return the course after silence until `now_s`: silence long enough ends the trouble."""
    if course.trouble_since_s is None or heat_at(course, now_s) >= LEAVE:
        return course
    return _leave(course, Exit(course.at_s + HALF_LIFE_S * math.log2(course.heat / LEAVE), "silent"))


def heat_at(course: Course, now_s: float) -> float:
    """Return what is left of a chat's heat at `now_s`."""
    return course.heat * math.pow(0.5, max(0.0, now_s - course.at_s) / HALF_LIFE_S)


def _take(course: Course, step: Step) -> Course:
    left = heat_at(course, step.at_s)
    if isinstance(step, Takeover):
        moved = replace(course, heat=0.0, at_s=step.at_s)
        return moved if course.trouble_since_s is None else _leave(moved, Exit(step.at_s, "handed_over", step.operator_id))
    heat = max(left, step.severity, ENTER) if isinstance(step, Raised) else _FADE * left + (1.0 - _FADE) * step.negativity
    moved = replace(course, heat=heat, at_s=step.at_s)
    if course.trouble_since_s is None:
        return replace(moved, trouble_since_s=step.at_s) if heat >= ENTER else moved
    return _leave(moved, Exit(step.at_s, "calmed")) if heat < LEAVE else moved


def _leave(course: Course, exit_: Exit) -> Course:
    return replace(course, trouble_since_s=None, exits=(*course.exits, exit_)[-_MAX_EXITS:])
