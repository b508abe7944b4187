"""Runs the real worker as a process against a Kafka, and reads back what came of every record: the ledger."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import create_topics

Position = tuple[int, int]
ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], object], deadline_s: float = 60.0, *, what: str = "") -> None:
    """Return once the condition holds; fail the test when it does not in time."""
    give_up_at_s = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > give_up_at_s:
            raise AssertionError(f"not within {deadline_s:g} s: {what or condition}")
        time.sleep(0.05)


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
            self._ends(name)
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

    def start_worker(self, *command: str, **environment: str) -> "WorkerProcess":
        worker = WorkerProcess(command or (sys.executable, "-m", "worker", "run"), {**self.environment, **environment})
        self.workers.append(worker)
        return worker

    def input_positions(self) -> set[Position]:
        return set(self._places(self.names.input))

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
        """Return how many outcome records there are, repeats included, without reading them."""
        return sum(high for topic in (self.names.emotions, self.names.dead_letter) for _, high in self._ends(topic).items())

    def committed(self) -> dict[int, int]:
        """Return the group's next offset of each input partition; 0 where nothing is committed."""
        consumer = self._consumer(self.group_id)
        try:
            asked = [TopicPartition(self.names.input, each) for each in range(self.partitions)]
            return {each.partition: max(0, each.offset) for each in consumer.committed(asked, timeout=20)}
        finally:
            consumer.close()

    def ends(self) -> dict[int, int]:
        return self._ends(self.names.input)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()

    def _consumer(self, group_id: str = "ledger-reader") -> Consumer:
        return Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group_id, "enable.auto.commit": False})

    def _ends(self, topic: str) -> dict[int, int]:
        """Return the end of each partition, waiting while a broker that has just started has no leader for one."""
        consumer = self._consumer()
        give_up_at_s = time.monotonic() + 30
        try:
            while True:
                try:
                    return {
                        each: consumer.get_watermark_offsets(TopicPartition(topic, each), timeout=20)[1]
                        for each in range(self.partitions)
                    }
                except KafkaException:
                    if time.monotonic() > give_up_at_s:
                        raise
                    time.sleep(0.1)
        finally:
            consumer.close()

    def _places(self, topic: str) -> list[Position]:
        return [(partition, offset) for partition, end in self._ends(topic).items() for offset in range(end)]

    def _read(self, topic: str) -> list[Any]:
        remaining = set(self._places(topic))
        consumer = self._consumer()
        found = []
        try:
            consumer.assign([TopicPartition(topic, each, 0) for each in range(self.partitions)])
            give_up_at_s = time.monotonic() + 60
            while remaining:
                for message in consumer.consume(500, timeout=0.2):
                    assert not message.error(), message.error()
                    remaining.discard((message.partition(), message.offset()))
                    found.append(message)
                assert time.monotonic() < give_up_at_s, f"{len(remaining)} records of {topic} could not be read"
        finally:
            consumer.close()
        return found


@dataclass
class WorkerProcess:
    """A worker started as its users start it; its log is kept for the failure message."""

    command: Sequence[str]
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]" = field(init=False)
    log_path: Path = field(init=False)

    def __post_init__(self) -> None:
        handle, name = tempfile.mkstemp(prefix="rugo-worker-", suffix=".log")
        self.log_path = Path(name)
        with os.fdopen(handle, "wb") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=log, stderr=log, cwd=ROOT
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def wait_until_assigned(self, deadline_s: float = 60.0) -> None:
        wait_until(lambda: "partitions assigned" in self.log or self.process.poll() is not None, deadline_s, what=self.log)
        assert self.process.poll() is None, self.log

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, deadline_s: float = 30.0) -> int:
        return self.process.wait(deadline_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self.log_path.unlink(missing_ok=True)


def check_ledger(stage: Stage) -> list[Outcome]:
    """Check the law of delivery and return all outcomes.

    Every input position has at least one outcome, all of one kind and with one id; nothing is answered that was not asked; the
    first copies of a chat's labels stand in the order of its messages.
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


def ask(worker: WorkerProcess, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of a probe of the worker's health."""
    port = re.findall(r'"http_port": ?(\d+)', worker.log)[0]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_ready(worker: WorkerProcess) -> None:
    worker.wait_until_assigned()
    wait_until(lambda: ask(worker, "/ready")[0] == 200, 20, what=worker.log)
