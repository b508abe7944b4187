"""Records as they come from Kafka and as they go back, free of any client library."""

from dataclasses import dataclass
from typing import NamedTuple

from worker.contracts.dead_letter import RejectionReason
from worker.contracts.inbound import ChatMessage
from worker.contracts.outbound import EscalationReason

Headers = tuple[tuple[str, bytes | None], ...]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The names of the four topics."""

    input: str
    emotions: str
    escalations: str
    dead_letter: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.input, self.emotions, self.escalations, self.dead_letter)


@dataclass(frozen=True, slots=True)
class Record:
    """A record read from Kafka, untouched."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)

    @property
    def position(self) -> str:
        """The position in words, for ids and logs."""
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record that is a chat message."""

    record: Record
    message: ChatMessage


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that can never be processed. `error` says what is wrong without quoting the record."""

    record: Record
    reason: RejectionReason
    error: str


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """A record to publish. The key decides the partition, unless one is named (modulo the number that the topic has)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is published of one record, in this order; `escalated` is the reason of the escalation among it, if there is one."""

    record: Record
    outgoing: tuple[OutgoingRecord, ...]
    escalated: EscalationReason | None = None
