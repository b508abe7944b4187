"""The ledger itself: it finds nothing in a good run, and each broken law by its name."""

import pytest

from tests.chaos.faults import FAULTS, faults_for
from tests.chaos.ledger import LAWS, Escalation, Ledger, Outcome
from tests.chaos.messages import MessageSource
from tests.chaos.mutants import options_for
from tests.chaos.mutations import MUTATIONS
from tests.chaos.plan import Options, make_plan
from tests.chaos.reading import digest_of, escalation_of
from tests.chaos.results import command_of


def label(offset: int, *, event_id: str = "", kind: str = "label", digest: int = 7, chat_id: str = "chat-1") -> Outcome:
    return Outcome((0, offset), kind, event_id or f"emotion:in-0-{offset}", digest, chat_id)


def escalation(offset: int, *, digest: int = 7) -> Escalation:
    return Escalation((0, offset), f"escalation:in-0-{offset}", digest, "chat-1")


def ledger(*, delivery: str = "at_least_once") -> Ledger:
    """Expects three labels, and an escalation on the second."""
    made = Ledger(delivery)
    for offset in range(3):
        made.expect(label(offset))
    made.expect_escalation(escalation(1))
    return made


def broken(made: Ledger, *outcomes: Outcome, escalations: tuple[Escalation, ...] | None = None) -> dict[str, int]:
    for each in outcomes:
        made.see(each, partition=0)
    for each in (escalation(1),) if escalations is None else escalations:
        made.see_escalation(each, partition=0)
    return dict(made.verdict().broken)


GOOD = (label(0), label(1), label(2))


def test_a_run_as_it_should_be_breaks_no_law_even_with_repeats():
    assert broken(ledger(), *GOOD) == {}
    assert broken(ledger(), label(0), label(1), label(0), label(1), label(2), escalations=(escalation(1), escalation(1))) == {}


@pytest.mark.parametrize(
    ("law", "outcomes", "escalations"),
    [
        ("lost", (label(0), label(2)), (escalation(1),)),
        ("invented", (*GOOD, label(3)), (escalation(1),)),
        ("two_kinds", (*GOOD, label(2, kind="dead letter")), (escalation(1),)),
        ("id_changed", (*GOOD, label(2, event_id="emotion:other")), (escalation(1),)),
        ("content_changed", (*GOOD, label(2, digest=8)), (escalation(1),)),
        ("out_of_order", (label(1), label(0), label(2)), (escalation(1),)),
        ("escalation_missing", GOOD, ()),
        ("escalation_invented", GOOD, (escalation(1), escalation(2))),
        ("escalation_changed", GOOD, (escalation(1, digest=8),)),
    ],
)
def test_each_broken_law_is_named(law, outcomes, escalations):
    assert broken(ledger(), *outcomes, escalations=escalations) == {law: 1}
    assert law in LAWS


def test_a_repeat_breaks_the_law_of_exactly_once_only():
    assert broken(ledger(delivery="exactly_once"), *GOOD, label(2)) == {"repeated": 1}
    assert broken(ledger(delivery="exactly_once"), *GOOD, escalations=(escalation(1), escalation(1))) == {"repeated": 1}


def test_chats_do_not_wait_for_each_other():
    made = ledger()
    assert broken(made, label(1, chat_id="chat-2"), label(0), label(2)) == {}


def test_events_are_compared_without_the_time_of_their_processing():
    early = b'{"event_id":"escalation:a.b-12-345","chat_id":"c","raised_at":"2026-01-01T00:00:00Z","severity":1.0}'
    late = early.replace(b"00:00:00Z", b"11:11:11.5Z")
    assert digest_of(early) == digest_of(late)
    assert digest_of(early) != digest_of(early.replace(b"1.0", b"0.9"))
    assert escalation_of(late).position == (12, 345)


def test_a_seed_decides_the_messages_and_the_plan():
    first, second, other = (MessageSource(seed) for seed in (1, 1, 2))
    made = [[source.next(1_789_000_000.0 + number) for number in range(300)] for source in (first, second, other)]
    assert made[0] == made[1] != made[2]
    weights = {name: fault.weight for name, fault in FAULTS.items()}
    plans = [make_plan(weights, seed=seed, count=60, duration_s=600) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    assert {each.name for each in plans[0]} == set(FAULTS)
    assert [each.at_s for each in plans[0]] == sorted(each.at_s for each in plans[0])


def test_the_recorded_command_makes_the_same_run_again():
    assert command_of(Options(100, 2, seed=3, minutes=0.5)) == (
        "python -m tests.chaos --messages 100 --faults 2 --seed 3 --minutes 0.5 --delivery at_least_once"
    )
    few = Options(100, 2, seed=3, minutes=1, delivery="exactly_once", workers=2, kinds=("broker_killed", "worker_frozen"))
    assert command_of(few).endswith("--delivery exactly_once --workers 2 --kinds broker_killed,worker_frozen")
    assert command_of(options_for("no_fencing")) == "python -m tests.chaos.mutants no_fencing"


def test_every_law_has_a_mutation_that_breaks_it():
    broken_by_one = {law for mutation in MUTATIONS.values() for law in mutation.breaks}
    assert broken_by_one == LAWS.keys()
    assert all(set(mutation.faults) <= faults_for("exactly_once").keys() for mutation in MUTATIONS.values())
