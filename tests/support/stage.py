"""Topics and a group of one test's own, the workers that it starts on them, and what came of every record: the ledger."""

import asyncio
import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from tests.support.topic_reader import TopicReader, committed_of, consumer_for, ends_of, patiently
from tests.support.worker_process import WorkerProcess, wait_until
from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import create_topics

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One published copy of a record's outcome. `place` is where it stands in its output topic."""

    kind: str
    answers: Position
    value: Any
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    place: Position

    @property
    def event_id(self) -> str:
        return str(self.value["event_id"]) if self.kind == "emotions" else ""


class Stage:
    """Topics and a group of one test's own on a running Kafka, and the worker processes that it starts."""

    def __init__(self, bootstrap_servers: str, *, bundle: Path, partitions: int = 3) -> None:
        tag = uuid.uuid4().hex[:8]
        self.bootstrap_servers = bootstrap_servers
        self.names = TopicNames(*(f"{tag}.{name}" for name in ("messages", "emotions", "escalations", "dlq")))
        self.group_id = f"{tag}-workers"
        self.partitions = partitions
        self.workers: list[WorkerProcess] = []
        self.environment = {
            "RUGO_BOOTSTRAP_SERVERS": bootstrap_servers,
            "RUGO_GROUP_ID": self.group_id,
            "RUGO_INPUT_TOPIC": self.names.input,
            "RUGO_EMOTIONS_TOPIC": self.names.emotions,
            "RUGO_ESCALATIONS_TOPIC": self.names.escalations,
            "RUGO_DEAD_LETTER_TOPIC": self.names.dead_letter,
            "RUGO_MODEL": str(bundle),
            "RUGO_HTTP_PORT": "0",
            "RUGO_INFERENCE_THREADS": "1",
            "RUGO_SESSION_TIMEOUT_MS": "6000",
        }
        self._producer = Producer(
            {"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "message.max.bytes": 2_000_000, "log_level": 2}
        )

    def create_topics(self) -> "Stage":
        asyncio.run(
            create_topics(
                BrokerConnection(self.bootstrap_servers),
                self.names,
                partitions=self.partitions,
                replication_factor=1,
                deadline_s=30.0,
            )
        )
        for name in self.names.all:
            self.ends(name)
        return self

    def publish(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int | None = None,
    ) -> None:
        where = {} if partition is None else {"partition": partition}
        self._producer.produce(self.names.input, value=value, key=key, headers=list(headers), **where)
        self._producer.poll(0)

    def publish_chats(self, count: int, *, chats: int = 20, text: str = "спасибо", first: int = 0) -> None:
        """Publish numbered messages, in turn over the chats."""
        for number in range(first, first + count):
            chat = f"chat-{number % chats}"
            value = {"message_id": f"m-{number}", "chat_id": chat, "text": f"{text} {number}"}
            self.publish(json.dumps(value, ensure_ascii=False).encode(), key=chat.encode())

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def start_worker(self, *command: str, **environment: str) -> WorkerProcess:
        worker = WorkerProcess(command or (sys.executable, "-m", "worker", "run"), {**self.environment, **environment})
        self.workers.append(worker)
        return worker

    def input_positions(self) -> set[Position]:
        return {(partition, offset) for partition, end in self.ends().items() for offset in range(end)}

    def outcomes(self) -> list[Outcome]:
        """Read both topics of outcomes from the beginning to their present ends."""
        found = []
        for kind, topic in (("emotions", self.names.emotions), ("dead letter", self.names.dead_letter)):
            for message in self._read(topic):
                headers = tuple(message.headers() or ())
                if kind == "emotions":
                    value = json.loads(message.value())
                    answers = (value["source"]["partition"], value["source"]["offset"])
                else:
                    value, added = message.value(), dict(headers)
                    answers = (int(added["dlq.partition"]), int(added["dlq.offset"]))
                place = (message.partition(), message.offset())
                found.append(Outcome(kind, answers, value, message.key(), headers, place))
        return found

    def repeat_labels(self, chat: str, *, times: int) -> None:
        """Publish the labels of a chat again, as a worker does that was killed between publishing and committing."""
        for message in [each for each in self._read(self.names.emotions) if each.key() == chat.encode()] * times:
            self._producer.produce(
                self.names.emotions,
                value=message.value(),
                key=message.key(),
                headers=message.headers(),
                partition=message.partition(),
            )
        self.flush()

    def escalations(self) -> list[dict[str, Any]]:
        return [json.loads(message.value()) for message in self._read(self.names.escalations)]

    def answered(self) -> set[Position]:
        return {each.answers for each in self.outcomes()}

    def count_outcomes(self) -> int:
        """Return how many outcome records there are, repeats and ends of transactions included, without reading them."""
        return sum(sum(self.ends(topic).values()) for topic in (self.names.emotions, self.names.dead_letter))

    def committed(self) -> dict[int, int]:
        """Return the group's next offset of each input partition; 0 where nothing is committed."""
        with consumer_for(self.bootstrap_servers, group_id=self.group_id) as consumer:
            return patiently(lambda: committed_of(consumer, self.names.input))

    def ends(self, topic: str | None = None) -> dict[int, int]:
        """Return the end of each partition of a topic, by default the input topic."""
        with consumer_for(self.bootstrap_servers) as consumer:
            return patiently(lambda: ends_of(consumer, topic or self.names.input))

    def uncommitted(self) -> int:
        """Return how many input positions are not committed yet: above 0 in the middle of a backlog."""
        return sum(self.ends().values()) - sum(self.committed().values())

    def wait_until_outcomes(self, count: int, deadline_s: float = 60.0) -> None:
        wait_until(lambda: self.count_outcomes() >= count, deadline_s, what=f"{count} outcomes")

    def wait_until_committed(self, count: int, deadline_s: float = 60.0) -> None:
        wait_until(lambda: sum(self.committed().values()) >= count, deadline_s, what=f"{count} inputs committed")

    def wait_until_all_committed(self, deadline_s: float = 90.0) -> None:
        wait_until(lambda: self.committed() == self.ends(), deadline_s, what="every input committed")

    def wait_until_all_answered(self, deadline_s: float = 90.0) -> None:
        self.wait_until_outcomes(sum(self.ends().values()), deadline_s)
        wait_until(lambda: self.answered() >= self.input_positions(), deadline_s, what="every input answered")

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def _read(self, topic: str) -> list[Any]:
        return list(TopicReader(self.bootstrap_servers, topic).read())


def check_ledger(stage: Stage) -> list[Outcome]:
    """Check the law of delivery and return all outcomes.

    Every input position has at least one outcome, all of one kind and with one id; nothing is answered that was not asked; the
    first copies of a chat's labels stand in the order of its messages. Only committed records count.
    """
    outcomes = stage.outcomes()
    by_position: dict[Position, set[tuple[str, str]]] = {}
    for each in outcomes:
        by_position.setdefault(each.answers, set()).add((each.kind, each.event_id))
    asked = stage.input_positions()
    assert asked - by_position.keys() == set(), "input positions without an outcome"
    assert by_position.keys() - asked == set(), "outcomes of positions that were never published"
    assert [kinds for kinds in by_position.values() if len(kinds) > 1] == [], "positions with several kinds or ids"
    _check_order(outcomes)
    return outcomes


def _check_order(outcomes: list[Outcome]) -> None:
    newest: dict[str, Position] = {}
    seen: set[str] = set()
    for each in sorted((each for each in outcomes if each.kind == "emotions"), key=lambda each: each.place):
        if each.event_id in seen:
            continue
        seen.add(each.event_id)
        chat = each.value["chat_id"]
        assert newest.get(chat, (-1, -1)) < each.answers, f"labels of {chat} out of order"
        newest[chat] = each.answers
