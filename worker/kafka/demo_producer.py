"""Publishes a file of chat messages to a running Kafka, paced like a day at the support centre."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import track

from worker.kafka.connection import BrokerConnection
from worker.kafka.rights import Right, missing_rights, rights_refused
from worker.kafka.topics import ask_broker, broker_unavailable


def lines_with_keys(path: Path) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield each line's bytes as they are, and its chat_id as the key if it has one. Empty lines are left out."""
    with path.open("rb") as file:
        for raw in file:
            line = raw.rstrip(b"\r\n")
            if line:
                yield line, key_of(line)


def key_of(line: bytes) -> bytes | None:
    """Return the chat_id of a line that is a JSON object with one, else None."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    chat_id = parsed.get("chat_id") if isinstance(parsed, dict) else None
    return chat_id.encode("utf-8", "replace") if isinstance(chat_id, str) and chat_id else None


async def publish_lines(path: Path, connection: BrokerConnection, *, topic: str, rate: float, deadline_s: float) -> int:
    """Publish the lines in order at `rate` a second and return how many. Raises `BrokerUnavailableError`."""
    lines = list(lines_with_keys(path))
    if missing := await ask_broker(
        connection, lambda admin: missing_rights(admin, [Right("Write", "topic", topic)]), deadline_s=deadline_s
    ):
        raise rights_refused(missing, connection)
    producer = AIOKafkaProducer(**connection.client_options(), acks="all", request_timeout_ms=int(deadline_s * 1000))
    try:
        await producer.start()
        for value, key in track(lines, description="publishing", console=Console(stderr=True)):
            await producer.send_and_wait(topic, value=value, key=key)
            await asyncio.sleep(1.0 / rate)
    except (KafkaError, OSError) as error:
        raise broker_unavailable(connection, deadline_s=deadline_s, error=error) from error
    finally:
        await producer.stop()
    return len(lines)
