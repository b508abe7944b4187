"""The topics that the worker needs: are they there, and how to create them."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from worker.core.failures import AccessRefusedError, BrokerUnavailableError, TopicsMissingError, WorkerError
from worker.core.records import TopicNames
from worker.kafka.broker_access import AccessFault, find_access_fault
from worker.kafka.connection import BrokerConnection
from worker.kafka.rights import Right, missing_rights, rights_refused

# A dead letter is the original record and some headers: its topic must take a little more than the input topic does.
DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024
T = TypeVar("T")

_RETRY_S = 1.0
_ATTEMPT_S = 10.0
_SURE_AFTER = 3
_NOT_ALLOWED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError)
_USUAL_COPIES = 3


async def ask_once(connection: BrokerConnection, question: Callable[[Any], Awaitable[T]], *, timeout_s: float) -> T:
    """Return what `question` makes of an admin client. Raises `KafkaError`, `OSError` or `TimeoutError` without an answer."""
    admin = AIOKafkaAdminClient(**connection.client_options(), request_timeout_ms=int(timeout_s * 1000))
    async with asyncio.timeout(timeout_s):
        try:
            await admin.start()
            return await question(admin)
        finally:
            await admin.close()


async def partition_counts(connection: BrokerConnection, topics: Sequence[str], *, request_timeout_s: float) -> dict[str, int]:
    """Ask how many partitions each topic has. Raises `KafkaError`, `OSError` or `TimeoutError` without an answer."""

    async def ask(admin: Any) -> dict[str, int]:
        return {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics(list(topics))}

    return await ask_once(connection, ask, timeout_s=request_timeout_s)


async def ask_broker(connection: BrokerConnection, question: Callable[[Any], Awaitable[T]], *, deadline_s: float) -> T:
    """Return what `question` makes of an admin client; ask until the broker answers.

    Raises `BrokerUnavailableError` when it doesn't answer within the deadline, `AccessRefusedError` as soon as it is sure that
    it won't let the worker in.
    """
    give_up_at, suspicions = asyncio.get_running_loop().time() + deadline_s, 0
    while True:
        try:
            return await ask_once(connection, question, timeout_s=min(_ATTEMPT_S, deadline_s))
        except (KafkaError, OSError, TimeoutError) as error:
            fault = await find_access_fault(connection, timeout_s=min(_ATTEMPT_S, deadline_s))
            suspicions = suspicions + 1 if fault else 0
            if fault and (fault.is_certain or suspicions >= _SURE_AFTER):
                raise AccessRefusedError(fault.sentence) from error
            if asyncio.get_running_loop().time() + _RETRY_S > give_up_at:
                raise broker_unavailable(connection, deadline_s=deadline_s, error=error) from error
            await asyncio.sleep(_RETRY_S)


async def wait_for_topics(
    connection: BrokerConnection, names: TopicNames, *, deadline_s: float, rights: Sequence[Right] = ()
) -> None:
    """Return once the broker answers and has every topic, and gives the worker the rights.

    Raises what `ask_broker` does; `AccessRefusedError` also when a right is missing, `TopicsMissingError` as soon as the broker
    answers that a topic is.
    """
    if missing := await ask_broker(connection, lambda admin: missing_rights(admin, rights), deadline_s=deadline_s):
        raise rights_refused(missing, connection)
    existing = await ask_broker(connection, lambda admin: admin.list_topics(), deadline_s=deadline_s)
    if absent := [name for name in names.all if name not in existing]:
        raise _topics_missing(connection, absent)


async def find_missing_topics(connection: BrokerConnection, topics: Collection[str]) -> TopicsMissingError | None:
    """Return the failure that says which of the topics are gone; None when all are there or the broker doesn't answer."""
    try:
        existing = await ask_once(connection, lambda admin: admin.list_topics(), timeout_s=_ATTEMPT_S)
    except (KafkaError, OSError, TimeoutError):
        return None
    absent = sorted(set(topics) - set(existing))
    return _topics_missing(connection, absent) if absent else None


def _topics_missing(connection: BrokerConnection, absent: Sequence[str]) -> TopicsMissingError:
    return TopicsMissingError(
        f"topics missing on {connection}: {', '.join(absent)}. Create them with `python -m worker topics create` "
        "(it takes the same RUGO_ settings), or with Kafka's own kafka-topics.sh."
    )


def broker_unavailable(connection: BrokerConnection, *, deadline_s: float, error: BaseException) -> BrokerUnavailableError:
    """Return the failure that says which broker was out of reach, for how long, and what to change."""
    return BrokerUnavailableError(
        f"no Kafka broker answered at {connection} for {deadline_s:g} s ({type(error).__name__}: {error}). Start it, "
        "set RUGO_BOOTSTRAP_SERVERS to where it listens, or raise RUGO_BROKER_DEADLINE_S."
    )


async def why_unavailable(connection: BrokerConnection, *, deadline_s: float, error: BaseException) -> WorkerError:
    """Return the failure behind an error: the broker won't let the worker in, or else it is out of reach."""
    if isinstance(error, _NOT_ALLOWED):
        return AccessRefusedError(
            f"the broker at {connection} does not allow what this command asks ({type(error).__name__}: {error}): "
            "see the rights in docs/security.md."
        )
    if fault := await _find_lasting_fault(connection, timeout_s=min(_ATTEMPT_S, deadline_s)):
        return AccessRefusedError(fault.sentence)
    return broker_unavailable(connection, deadline_s=deadline_s, error=error)


async def _find_lasting_fault(connection: BrokerConnection, *, timeout_s: float) -> AccessFault | None:
    # A broker that is just stopping or starting looks like one that won't let the worker in: once is not enough.
    for _ in range(_SURE_AFTER):
        fault = await find_access_fault(connection, timeout_s=timeout_s)
        if fault is None or fault.is_certain:
            return fault
        await asyncio.sleep(_RETRY_S)
    return fault


async def create_topics(
    connection: BrokerConnection, names: TopicNames, *, partitions: int, replication_factor: int, deadline_s: float
) -> dict[str, str]:
    """Create the topics that don't exist and return what became of each: `created` or `exists`.

    A `replication_factor` of 0 takes three copies, or as many as there are brokers. Raises what `ask_broker` does or, with the
    broker's reason, `TopicsMissingError`.
    """

    async def ask(admin: Any) -> Any:
        brokers = len((await admin.describe_cluster())["brokers"])
        copies = replication_factor or min(_USUAL_COPIES, brokers)
        try:
            return await admin.create_topics(_new_topics(names, partitions, replication_factor=copies))
        except KafkaError as error:
            if error.retriable:
                raise
            raise TopicsMissingError(f"topics can't be created: {type(error).__name__}: {error}") from error

    response = await ask_broker(connection, ask, deadline_s=deadline_s)
    return {topic: _became(topic, code, message) for topic, code, message in response.topic_errors}


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
    if error is TopicAuthorizationFailedError:
        raise AccessRefusedError(f"the broker does not allow this user to create topic {topic}: create it as an administrator.")
    raise TopicsMissingError(f"topic {topic} can't be created: {error.__name__}{f' ({message})' if message else ''}")
