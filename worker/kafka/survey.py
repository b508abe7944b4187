"""What a cluster says of the worker's topics and group, asked once and changed in nothing: for `doctor`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import why_unavailable

_MAX_BYTES = "max.message.bytes"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TopicSurvey:
    """One topic. `copies` is the least replication of its partitions; `max_message_bytes` is None where it may not be asked."""

    partitions: int
    copies: int
    leaderless: int
    max_message_bytes: int | None


@dataclass(frozen=True, slots=True)
class GroupSurvey:
    """The worker's consumer group. `committed` and `ends` are next offsets of the input topic by partition."""

    state: str
    members: int
    committed: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def lag(self) -> dict[int, int]:
        """Return by partition how many records wait; where nothing is committed, all that are there."""
        return {partition: max(0, end - self.committed.get(partition, 0)) for partition, end in sorted(self.ends.items())}


@dataclass(frozen=True, slots=True)
class ClusterSurvey:
    """What was found. `refused` names what could not be asked, with the error's name: mostly a right that is missing."""

    brokers: int
    topics: Mapping[str, TopicSurvey]
    group: GroupSurvey | None
    refused: Mapping[str, str] = field(default_factory=dict)


async def survey_cluster(connection: BrokerConnection, names: TopicNames, *, group_id: str, timeout_s: float) -> ClusterSurvey:
    """Ask for the topics and the group. Raises `BrokerUnavailableError` or `AccessRefusedError`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _survey(connection, names, group_id=group_id, timeout_s=timeout_s)
    except (KafkaError, OSError, TimeoutError) as error:
        raise await why_unavailable(connection, deadline_s=timeout_s, error=error) from error


async def _survey(connection: BrokerConnection, names: TopicNames, *, group_id: str, timeout_s: float) -> ClusterSurvey:
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(timeout_s * 1000))
    refused: dict[str, str] = {}
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        topics = await _topics(admin, names, refused)
        group = None
        if names.input in topics:
            partitions = topics[names.input].partitions
            group = await _allowed(
                "group",
                lambda: _group(admin, connection, names.input, partitions=partitions, group_id=group_id),
                refused,
            )
        return ClusterSurvey(brokers, topics, group, refused)
    finally:
        await admin.close()


async def _allowed(what: str, ask: Callable[[], Awaitable[T]], refused: dict[str, str]) -> T | None:
    try:
        return await ask()
    except KafkaError as error:
        if error.retriable:
            raise
        refused[what] = type(error).__name__
        return None


async def _topics(admin: Any, names: TopicNames, refused: dict[str, str]) -> dict[str, TopicSurvey]:
    described = [each for each in await admin.describe_topics(list(names.all)) if each["error_code"] == 0]
    limits = await _allowed("topic configs", lambda: _max_bytes(admin, [each["topic"] for each in described]), refused) or {}
    return {
        each["topic"]: TopicSurvey(
            partitions=len(each["partitions"]),
            copies=min((len(part["replicas"]) for part in each["partitions"]), default=0),
            leaderless=sum(part["leader"] < 0 for part in each["partitions"]),
            max_message_bytes=limits.get(each["topic"]),
        )
        for each in described
    }


async def _max_bytes(admin: Any, topics: list[str]) -> dict[str, int]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs={_MAX_BYTES: None}) for name in topics]
    found = {}
    for response in await admin.describe_configs(resources) if resources else ():
        for code, _, _, name, entries in response.resources:
            if code:
                raise for_code(code)
            found[name] = int(next(entry[1] for entry in entries if entry[0] == _MAX_BYTES))
    return found


async def _group(admin: Any, connection: BrokerConnection, topic: str, *, partitions: int, group_id: str) -> GroupSurvey:
    (response,) = await admin.describe_consumer_groups([group_id])
    code, _, state, _, _, members, *_ = response.groups[0]
    if code:
        raise for_code(code)
    ends = await _ends(connection, topic, partitions)
    committed = await admin.list_consumer_group_offsets(group_id, partitions=list(ends))
    return GroupSurvey(
        state=state or "Empty",
        members=len(members),
        committed={each.partition: at.offset for each, at in committed.items() if at.offset >= 0},
        ends={each.partition: end for each, end in ends.items()},
    )


async def _ends(connection: BrokerConnection, topic: str, partitions: int) -> dict[KafkaTopicPartition, int]:
    # Subscribed to nothing, so that it fetches nothing.
    consumer = AIOKafkaConsumer(**connection.client_options(), group_id=None, isolation_level="read_committed")
    await consumer.start()
    try:
        asked = [KafkaTopicPartition(topic, each) for each in range(partitions)]
        ends: dict[KafkaTopicPartition, int] = await consumer.end_offsets(asked)
        return ends
    finally:
        await consumer.stop()
