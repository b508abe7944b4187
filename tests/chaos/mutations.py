"""Deliberate bugs with which the suite shows that it would catch them; every law is broken by one at least.

A mutation is applied inside a rigged worker's process only; `breaks` names the laws of which at least one must be reported.
"""

import json
import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from worker.core import escalation_states
from worker.core.events import EventBuilder
from worker.core.failures import WorkerError
from worker.core.records import OutgoingRecord
from worker.kafka.publisher import KafkaPublisher
from worker.kafka.state_reader import StateReader

_ESCALATION_LAWS = ("escalation_invented", "escalation_changed", "escalation_missing")


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug in words, the laws that it breaks, the faults that bring it out, and how to put it in."""

    what: str
    breaks: tuple[str, ...]
    faults: tuple[str, ...]
    apply: Callable[[], None]
    delivery: str = "at_least_once"


def _commit_before_publish() -> None:
    poll = AIOKafkaConsumer.getmany

    async def getmany(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = await poll(self, *args, **kwargs)
        if found:
            with suppress(Exception):
                await self.commit()
        return found

    AIOKafkaConsumer.getmany = getmany


def _random_event_id() -> None:
    build = EventBuilder.emotion_record

    def emotion_record(*args: Any, **kwargs: Any) -> OutgoingRecord:
        made = build(*args, **kwargs)
        event = json.loads(made.value or b"")
        return replace(made, value=json.dumps({**event, "event_id": str(uuid.uuid4())}, ensure_ascii=False).encode())

    EventBuilder.emotion_record = emotion_record


def _publish_without_order() -> None:
    publish = KafkaPublisher.publish

    async def shuffled(self: Any, outgoing: Sequence[OutgoingRecord], *args: Any, **kwargs: Any) -> None:
        await publish(self, random.sample(outgoing, len(outgoing)), *args, **kwargs)

    KafkaPublisher.publish = shuffled


def _swallow_a_failed_publish() -> None:
    publish = KafkaPublisher.publish

    async def careless(self: Any, *args: Any, **kwargs: Any) -> None:
        with suppress(WorkerError):
            await publish(self, *args, **kwargs)

    KafkaPublisher.publish = careless


def _no_dead_letters() -> None:
    publish = KafkaPublisher.publish

    async def forgetful(self: Any, outgoing: Sequence[OutgoingRecord], *args: Any, **kwargs: Any) -> None:
        kept = [each for each in outgoing if not any(name == "dlq.reason" for name, _ in each.headers)]
        await publish(self, kept, *args, **kwargs)

    KafkaPublisher.publish = forgetful


def _dead_letter_and_label() -> None:
    publish = KafkaPublisher.publish

    async def both(self: Any, outgoing: Sequence[OutgoingRecord], *args: Any, **kwargs: Any) -> None:
        copies = [
            replace(each, topic=each.topic.replace("emotions", "dlq"), headers=_dead_letter_headers(each))
            for each in outgoing
            if "emotions" in each.topic and random.random() < 0.01
        ]
        await publish(self, [*outgoing, *copies], *args, **kwargs)

    KafkaPublisher.publish = both


def _label_of_nothing() -> None:
    publish = KafkaPublisher.publish

    async def inventive(self: Any, outgoing: Sequence[OutgoingRecord], *args: Any, **kwargs: Any) -> None:
        copies = [_elsewhere(each) for each in outgoing if "emotions" in each.topic and random.random() < 0.01]
        await publish(self, [*outgoing, *copies], *args, **kwargs)

    KafkaPublisher.publish = inventive


def _elsewhere(label: OutgoingRecord) -> OutgoingRecord:
    event = json.loads(label.value or b"")
    event["source"]["partition"] += 1000
    return replace(label, value=json.dumps(event, ensure_ascii=False).encode())


def _untrue_label() -> None:
    build = EventBuilder.emotion_record

    def emotion_record(*args: Any, **kwargs: Any) -> OutgoingRecord:
        made = build(*args, **kwargs)
        return replace(made, value=(made.value or b"").replace(b'"truncated":false', b'"truncated":true'))

    EventBuilder.emotion_record = emotion_record


def _dead_letter_headers(label: OutgoingRecord) -> tuple[tuple[str, bytes | None], ...]:
    source = json.loads(label.value or b"")["source"]
    return tuple((f"dlq.{name}", str(source[name]).encode()) for name in ("topic", "partition", "offset"))


def _no_dedupe() -> None:
    judge = escalation_states.judge_message

    def forgetful(policy: Any, state: Any, message: Any) -> Any:
        return judge(policy, replace(state, seen=()), message)

    escalation_states.judge_message = forgetful


def _no_restore() -> None:
    async def restore(self: Any, partitions: Any) -> None:
        """Leave every chat forgotten."""

    StateReader.restore = restore


def _no_fencing() -> None:
    start = AIOKafkaProducer.__init__

    def unfenced(self: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("transactional_id"):
            kwargs["transactional_id"] += f"-{uuid.uuid4()}"
        start(self, *args, **kwargs)

    AIOKafkaProducer.__init__ = unfenced


MUTATIONS: dict[str, Mutation] = {
    "commit_before_publish": Mutation(
        "offsets are committed as soon as a poll has come",
        ("lost",),
        ("die_inferring", "die_publishing"),
        _commit_before_publish,
    ),
    "random_event_id": Mutation("ids of labels are random", ("id_changed",), (), _random_event_id),
    "publish_without_order": Mutation("a poll's events go out in any order", ("out_of_order",), (), _publish_without_order),
    "swallow_a_failed_publish": Mutation(
        "an event that the broker refuses is passed over", ("lost",), ("dead_letters_too_large",), _swallow_a_failed_publish
    ),
    "no_dead_letters": Mutation("what can't be read is dropped", ("lost",), (), _no_dead_letters),
    "dead_letter_and_label": Mutation("some messages are dead-lettered too", ("two_kinds",), (), _dead_letter_and_label),
    "label_of_nothing": Mutation("some labels answer records that never were", ("invented",), (), _label_of_nothing),
    "untrue_label": Mutation("labels say that texts were cut", ("content_changed",), (), _untrue_label),
    "no_dedupe": Mutation("a repeated message counts again", _ESCALATION_LAWS, (), _no_dedupe),
    "no_restore": Mutation(
        "what is remembered of a chat ends with the worker", _ESCALATION_LAWS, ("all_workers_killed",) * 3, _no_restore
    ),
    "no_fencing": Mutation(
        "each process has transactional ids of its own",
        ("repeated",),
        ("worker_frozen", "worker_frozen", "worker_frozen"),
        _no_fencing,
        delivery="exactly_once",
    ),
}
