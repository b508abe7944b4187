"""The laws of delivery, and the book that is kept to check them: what each input position must come to, and what it came to."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Delivery = Literal["at_least_once", "exactly_once"]
Kind = Literal["label", "dead letter"]
Position = tuple[int, int]

# What each law says; their names are what a broken one is reported by.
LAWS = {
    "lost": "every input position has an outcome",
    "invented": "no outcome answers a position that was never published",
    "two_kinds": "all copies of an outcome are of the kind that they are without faults",
    "id_changed": "all copies of an outcome carry one id",
    "content_changed": "all copies of an outcome say what they say without faults",
    "out_of_order": "first copies of a chat's outcomes stand in the order of its messages",
    "repeated": "exactly once: there is one copy of each outcome and each escalation",
    "escalation_missing": "every escalation of a run without faults is there",
    "escalation_invented": "there is no escalation that a run without faults does not have",
    "escalation_changed": "escalations say what they say without faults, but for when they were raised",
}
_EXAMPLES = 5


class Outcome(NamedTuple):
    """What becomes of an input position. `digest` is of what it says, times of processing left out."""

    position: Position
    kind: Kind
    event_id: str
    digest: int
    chat_id: str


class Escalation(NamedTuple):
    """An escalation event. `position` is that of the message that set it off."""

    position: Position
    event_id: str
    digest: int
    chat_id: str


@dataclass(slots=True)
class Verdict:
    """How often each law was broken, with the first examples, and what the run came to."""

    positions: int = 0
    copies: int = 0
    repeats: int = 0
    escalations_expected: int = 0
    escalations_found: int = 0
    escalation_repeats: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)


class Ledger:
    """Takes in first what must come out, then what came out, in the order in which it stands on its topic."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._expected: dict[Position, Outcome] = {}
        self._copies: Counter[Position] = Counter()
        self._escalations: dict[str, Escalation] = {}
        self._escalation_copies: Counter[str] = Counter()
        self._newest: dict[tuple[str, int, int, str], int] = {}
        self._broken: dict[str, list[str]] = defaultdict(list)

    def expect(self, outcome: Outcome) -> None:
        self._expected[outcome.position] = outcome

    def expect_escalation(self, escalation: Escalation) -> None:
        self._escalations[escalation.event_id] = escalation

    def see(self, outcome: Outcome, *, partition: int) -> None:
        """Take in one published copy, found in a partition of its topic."""
        expected = self._expected.get(outcome.position)
        if expected is None:
            self._note("invented", outcome.position)
            return
        self._copies[outcome.position] += 1
        if outcome.kind != expected.kind:
            self._note("two_kinds", f"{outcome.position}: {outcome.kind}, not {expected.kind}")
        elif outcome.event_id != expected.event_id:
            self._note("id_changed", f"{outcome.position}: {outcome.event_id}, not {expected.event_id}")
        elif outcome.digest != expected.digest:
            self._note("content_changed", outcome.position)
        if self._copies[outcome.position] == 1:
            self._check_order(outcome.kind, outcome.position, outcome.chat_id, partition)

    def see_escalation(self, escalation: Escalation, *, partition: int) -> None:
        """Take in one published copy, found in a partition of its topic."""
        self._escalation_copies[escalation.event_id] += 1
        expected = self._escalations.get(escalation.event_id)
        if expected is None:
            self._note("escalation_invented", escalation.event_id)
        elif expected.digest != escalation.digest:
            self._note("escalation_changed", escalation.event_id)
        if self._escalation_copies[escalation.event_id] == 1:
            self._check_order("escalation", escalation.position, escalation.chat_id, partition)

    def verdict(self) -> Verdict:
        """Return what was broken. Ask once, when everything has been taken in."""
        for position in self._expected.keys() - self._copies.keys():
            self._note("lost", position)
        for event_id in self._escalations.keys() - self._escalation_copies.keys():
            self._note("escalation_missing", event_id)
        verdict = Verdict(
            positions=len(self._expected),
            copies=self._copies.total(),
            repeats=self._copies.total() - len(self._copies),
            escalations_expected=len(self._escalations),
            escalations_found=len(self._escalation_copies),
            escalation_repeats=self._escalation_copies.total() - len(self._escalation_copies),
        )
        if self._delivery == "exactly_once":
            repeated = [each for counted in (self._copies, self._escalation_copies) for each, n in counted.items() if n > 1]
            for each in repeated:
                self._note("repeated", each)
        verdict.broken = Counter({law: len(found) for law, found in self._broken.items()})
        verdict.examples = {law: sorted(found)[:_EXAMPLES] for law, found in self._broken.items()}
        return verdict

    def _check_order(self, kind: str, position: Position, chat_id: str, partition: int) -> None:
        # By the input partition too: a chat that moved when partitions were added has no order across them.
        place = (kind, partition, position[0], chat_id)
        if self._newest.get(place, -1) > position[1]:
            self._note("out_of_order", f"{kind} of {chat_id} {position} after {self._newest[place]}")
        self._newest[place] = max(self._newest.get(place, -1), position[1])

    def _note(self, law: str, what: object) -> None:
        self._broken[law].append(str(what))
