"""Dead letters read back: what each says of itself, which are meant, which were sent back already, and what is sent back."""

import json
import re
import zlib
from base64 import b85decode, b85encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from worker.contracts import dead_letter
from worker.core.decode import decode_record
from worker.core.failures import DeadLetterError
from worker.core.records import OutgoingRecord, Record, Rejected, TopicPartition

_POSITION = re.compile(r"(?:(?P<topic>.+)-)?(?P<partition>\d{1,9})-(?P<offset>\d{1,18})", re.ASCII)
_MAX_NOTE_CHARS = 4000  # a broker stores 4096 bytes with an offset


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of the dead-letter topic. `record` is as it stands there, `dlq.` headers included.

    Of a header that is there twice the last one counts: the worker adds its own at the end.
    """

    record: Record
    reason: str
    error: str
    origin: TopicPartition
    origin_offset: int
    origin_timestamp_ms: int

    @property
    def position(self) -> str:
        """Partition and offset in the dead-letter topic: how it is named on the command line."""
        return f"{self.record.partition}-{self.record.offset}"

    @property
    def origin_position(self) -> str:
        """Where the original was, in words."""
        return f"{self.origin.topic}-{self.origin.partition}-{self.origin_offset}" if self.origin.topic else "unknown"

    @property
    def size_bytes(self) -> int:
        return len(self.record.value or b"")


@dataclass(frozen=True, slots=True)
class Redrive:
    """A record to send back. Timestamp None is the moment of sending."""

    letter: DeadLetter
    outgoing: OutgoingRecord
    timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Redriven:
    """Which dead letters of a partition were sent back: all before `next_offset`, and those in `later`."""

    next_offset: int = 0
    later: frozenset[int] = frozenset()

    def __contains__(self, offset: int) -> bool:
        return offset < self.next_offset or offset in self.later

    def including(self, offsets: Iterable[int]) -> "Redriven":
        """Return what holds once these were sent back as well."""
        later, next_offset = {*self.later, *offsets}, self.next_offset
        while next_offset in later:
            next_offset += 1
        return Redriven(next_offset, frozenset(each for each in later if each >= next_offset))

    def from_offset(self, first: int) -> "Redriven":
        """Return what holds where the topic begins at `first`: what retention has removed needs no remembering."""
        return self if first <= self.next_offset else Redriven(first, self.later).including(())

    def note(self) -> str:
        """Return `later` as the text that is stored with the committed offset. Raises `DeadLetterError` when it is too long."""
        if not self.later:
            return ""
        bits = sum(1 << (each - self.next_offset) for each in self.later)
        note = b85encode(zlib.compress(bits.to_bytes((bits.bit_length() + 7) // 8, "little"))).decode()
        if len(note) > _MAX_NOTE_CHARS:
            raise DeadLetterError(
                "the dead letters that were sent back lie too scattered to be remembered: send back all with "
                "`dlq redrive --all`, or name another --group, which remembers nothing yet."
            )
        return note

    @classmethod
    def from_note(cls, next_offset: int, note: str) -> "Redriven":
        """Return what was stored. Raises `DeadLetterError` when the text is none of ours."""
        if not note:
            return cls(next_offset)
        try:
            bits = int.from_bytes(zlib.decompress(b85decode(note)), "little")
        except (ValueError, zlib.error) as error:
            raise DeadLetterError(
                "the group's offsets hold a note that is not of `dlq redrive`: name another --group."
            ) from error
        return cls(next_offset, frozenset(next_offset + each for each in range(bits.bit_length()) if bits >> each & 1))


def dead_letter_of(record: Record) -> DeadLetter:
    """Return what a record of the dead-letter topic says of itself; what it does not say is `unknown`, 0 or empty."""
    said = {
        name: (value or b"").decode("utf-8", "replace") for name, value in record.headers if name.startswith(dead_letter.PREFIX)
    }
    return DeadLetter(
        record=record,
        reason=said.get(dead_letter.REASON) or "unknown",
        error=said.get(dead_letter.ERROR, ""),
        origin=TopicPartition(said.get(dead_letter.TOPIC, ""), _number(said, dead_letter.PARTITION)),
        origin_offset=_number(said, dead_letter.OFFSET),
        origin_timestamp_ms=_number(said, dead_letter.TIMESTAMP),
    )


def _number(said: Mapping[str, str], name: str) -> int:
    try:
        return int(said.get(name, ""))
    except ValueError:
        return 0


def redrive_of(letter: DeadLetter, *, input_topic: str) -> Redrive:
    """Return the original as it goes back: all as it was, but for one header that says where it comes from."""
    record = letter.record
    kept = tuple((name, value) for name, value in record.headers if not name.startswith(dead_letter.PREFIX))
    headers = (*kept, (dead_letter.REDRIVEN_FROM, record.position.encode()))
    partition = letter.origin.partition if letter.origin.topic == input_topic else None
    timestamp_ms = letter.origin_timestamp_ms if letter.origin_timestamp_ms > 0 else None
    return Redrive(letter, OutgoingRecord(input_topic, record.key, record.value, headers, partition), timestamp_ms)


def corrected(redrive: Redrive, value: bytes) -> Redrive:
    """Return the record with a corrected value; one without a key gets the value's chat_id.

    Raises `DeadLetterError` when the value would be refused again.
    """
    found = decode_record(replace(redrive.letter.record, value=value))
    if isinstance(found, Rejected):
        raise DeadLetterError(f"the corrected value of {redrive.letter.position} would be refused again: {found.error}")
    outgoing = replace(redrive.outgoing, value=value)
    if outgoing.key is None:
        outgoing = replace(outgoing, key=found.message.chat_id.encode(), partition=None)
    return replace(redrive, outgoing=outgoing)


def parse_position(position: str, *, topic: str) -> tuple[int, int]:
    """Return partition and offset of `2-17`, or `<dead-letter topic>-2-17`. Raises `DeadLetterError`."""
    found = _POSITION.fullmatch(position.strip())
    if found is None or found["topic"] not in (None, topic):
        raise DeadLetterError(f"{position!r} is no position in {topic}: give partition and offset there, such as 0-17.")
    return int(found["partition"]), int(found["offset"])


def parse_corrections(lines: Iterable[bytes], *, topic: str, source: str) -> dict[tuple[int, int], bytes]:
    """Return the corrected values by position. A line is {"position": "0-17", "value": ...}, as `dlq list --json` prints it.

    `value` is the message, or its JSON in a string; other fields are ignored. Raises `DeadLetterError` naming the line.
    """
    found: dict[tuple[int, int], bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            parsed = json.loads(line)
            position, value = parse_position(parsed["position"], topic=topic), parsed["value"]
            found[position] = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DeadLetterError(
                f'{source}, line {number}: not {{"position": "0-17", "value": {{...}}}} ({type(error).__name__})'
            ) from error
    if not found:
        raise DeadLetterError(f"{source} has no corrected values")
    return found


def shown_value(value: bytes | None) -> Any:
    """Return a value as it can be printed and, corrected, read back by `parse_corrections`."""
    if value is None:
        return None
    text = value.decode("utf-8", "replace")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, dict) else text
