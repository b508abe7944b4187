"""What a cluster says of the worker's topics and group, asked once and changed in nothing: for `doctor`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection
from worker.kafka.group_lag import GroupLag, measure_lag
from worker.kafka.topics import ask_once, why_unavailable

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
    """The worker's consumer group, and how far it is behind the input topic."""

    state: str
    members: int
    lag: GroupLag


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
        return await ask_once(
            connection, lambda admin: _survey(admin, connection, names, group_id=group_id), timeout_s=timeout_s
        )
    except (KafkaError, OSError, TimeoutError) as error:
        raise await why_unavailable(connection, deadline_s=timeout_s, error=error) from error


async def _survey(admin: Any, connection: BrokerConnection, names: TopicNames, *, group_id: str) -> ClusterSurvey:
    refused: dict[str, str] = {}
    brokers = len((await admin.describe_cluster())["brokers"])
    topics = await _topics(admin, names, refused)
    group = None
    if names.input in topics:
        partitions = range(topics[names.input].partitions)
        group = await _allowed(
            "group", lambda: _group(admin, connection, names.input, partitions=partitions, group_id=group_id), refused
        )
    return ClusterSurvey(brokers, topics, group, refused)


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


async def _group(
    admin: Any, connection: BrokerConnection, topic: str, *, partitions: Sequence[int], group_id: str
) -> GroupSurvey:
    (response,) = await admin.describe_consumer_groups([group_id])
    code, _, state, _, _, members, *_ = response.groups[0]
    if code:
        raise for_code(code)
    lag = await measure_lag(admin, connection, group_id=group_id, topic=topic, partitions=partitions)
    return GroupSurvey(state or "Empty", len(members), lag)
