"""The topics that the worker needs: are they there, and how to create them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from worker.core.failures import BrokerUnavailableError, TopicsMissingError
from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection

# A dead letter is the original record and some headers: its topic must take a little more than the input topic does.
DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
_RETRY_S = 1.0
_USUAL_COPIES = 3


async def existing_topics(connection: BrokerConnection, *, request_timeout_s: float) -> frozenset[str]:
    """Ask the broker for its topics. Raises `KafkaError`, `OSError` or `TimeoutError` when it doesn't answer."""
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(request_timeout_s * 1000))
    async with asyncio.timeout(request_timeout_s):
        try:
            await admin.start()
            return frozenset(await admin.list_topics())
        finally:
            await admin.close()


async def partition_counts(connection: BrokerConnection, topics: Sequence[str], *, request_timeout_s: float) -> dict[str, int]:
    """Ask how many partitions each topic has. Raises `KafkaError`, `OSError` or `TimeoutError` without an answer."""
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(request_timeout_s * 1000))
    async with asyncio.timeout(request_timeout_s):
        try:
            await admin.start()
            return {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics(list(topics))}
        finally:
            await admin.close()


async def wait_for_topics(connection: BrokerConnection, names: TopicNames, *, deadline_s: float) -> None:
    """Return once the broker answers and has every topic.

    Raises `BrokerUnavailableError` when it doesn't answer within the deadline, `TopicsMissingError` as soon as it answers
    that a topic is missing.
    """
    give_up_at = asyncio.get_running_loop().time() + deadline_s
    while True:
        try:
            existing = await existing_topics(connection, request_timeout_s=min(10.0, deadline_s))
        except (KafkaError, OSError, TimeoutError) as error:
            if asyncio.get_running_loop().time() + _RETRY_S > give_up_at:
                raise broker_unavailable(connection, deadline_s=deadline_s, error=error) from error
            await asyncio.sleep(_RETRY_S)
        else:
            break
    if missing := [name for name in names.all if name not in existing]:
        raise TopicsMissingError(
            f"topics missing on {connection}: {', '.join(missing)}. Create them with `python -m worker topics create` "
            "(it takes the same RUGO_ settings), or with Kafka's own kafka-topics.sh."
        )


def broker_unavailable(connection: BrokerConnection, *, deadline_s: float, error: BaseException) -> BrokerUnavailableError:
    """Return the failure that says which broker was out of reach, for how long, and what to change."""
    return BrokerUnavailableError(
        f"no Kafka broker answered at {connection} for {deadline_s:g} s ({type(error).__name__}: {error}). Start it, "
        "set RUGO_BOOTSTRAP_SERVERS to where it listens, or raise RUGO_BROKER_DEADLINE_S."
    )


async def create_topics(
    connection: BrokerConnection, names: TopicNames, *, partitions: int, replication_factor: int, deadline_s: float
) -> dict[str, str]:
    """Create the topics that don't exist and return what became of each: `created` or `exists`.

    A `replication_factor` of 0 takes three copies, or as many as there are brokers. Raises `BrokerUnavailableError` or, with
    the broker's reason, `TopicsMissingError`.
    """
    give_up_at = asyncio.get_running_loop().time() + deadline_s
    while True:
        try:
            response = await _ask_for_topics(connection, names, partitions=partitions, replication_factor=replication_factor)
            break
        except (KafkaError, OSError, TimeoutError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise TopicsMissingError(f"topics can't be created: {type(error).__name__}: {error}") from error
            if asyncio.get_running_loop().time() + _RETRY_S > give_up_at:
                raise broker_unavailable(connection, deadline_s=deadline_s, error=error) from error
            await asyncio.sleep(_RETRY_S)
    return {topic: _became(topic, code, message) for topic, code, message in response.topic_errors}


async def _ask_for_topics(connection: BrokerConnection, names: TopicNames, *, partitions: int, replication_factor: int) -> Any:
    admin = AIOKafkaAdminClient(**connection.client_options())
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        copies = replication_factor or min(_USUAL_COPIES, brokers)
        return await admin.create_topics(_new_topics(names, partitions, replication_factor=copies))
    finally:
        await admin.close()


def _new_topics(names: TopicNames, partitions: int, *, replication_factor: int) -> Sequence[NewTopic]:
    def configs(name: str) -> dict[str, str]:
        return {"max.message.bytes": str(DEAD_LETTER_MAX_BYTES)} if name == names.dead_letter else {}

    return [NewTopic(name, partitions, replication_factor, topic_configs=configs(name)) for name in names.all]


def _became(topic: str, code: int, message: str | None) -> str:
    error = for_code(code)
    if code == 0:
        return "created"
    if error is TopicAlreadyExistsError:
        return "exists"
    raise TopicsMissingError(f"topic {topic} can't be created: {error.__name__}{f' ({message})' if message else ''}")
