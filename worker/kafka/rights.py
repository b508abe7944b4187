"""What Kafka's authorizer lets the worker do, asked of the broker before the work begins and while it goes on.

aiokafka would only say so in a log, and try again for ever.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from worker.core.failures import AccessRefusedError
from worker.core.records import TopicNames
from worker.kafka.connection import BrokerConnection

Operation = Literal["Read", "Write"]
_BITS: Mapping[Operation, int] = {"Read": 1 << 3, "Write": 1 << 4}
_NOT_TOLD = -(2**31)


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """An operation on a topic, a group or, by their common beginning, transactional ids. Read and Write include Describe."""

    operation: Operation
    kind: Literal["topic", "group", "transactional-id"]
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} {self.name}"


def worker_rights(names: TopicNames, *, group_id: str, uses_transactions: bool = False) -> tuple[Right, ...]:
    """Return what the worker must be allowed, and no more than that."""
    transactions = [Right("Write", "transactional-id", f"{group_id}-")] if uses_transactions else []
    return (
        *transactions,
        Right("Read", "topic", names.input),
        Right("Read", "topic", names.emotions),  # what it remembers of the chats
        Right("Read", "group", group_id),
        *(Right("Write", "topic", name) for name in (names.emotions, names.escalations, names.dead_letter)),
    )


async def missing_rights(admin: AIOKafkaAdminClient, wanted: Sequence[Right]) -> list[Right]:
    """Return those of the wanted rights that the broker says the client lacks; a broker that can't say, lacks none.

    Topics that don't exist lack nothing either, unless the authorizer hides that they don't. Raises `KafkaError`.
    """
    topics = await _on_topics(admin, sorted({each.name for each in wanted if each.kind == "topic"}))
    groups = {name: await _on_group(admin, name) for name in {each.name for each in wanted if each.kind == "group"}}
    ids = {each.name: await _on_transactional_id(admin, each.name) for each in wanted if each.kind == "transactional-id"}
    allowed = {"topic": topics, "group": groups, "transactional-id": ids}
    return [each for each in wanted if not _holds(allowed[each.kind].get(each.name, _NOT_TOLD), each.operation)]


def rights_refused(missing: Iterable[Right], connection: BrokerConnection) -> AccessRefusedError:
    """Return the failure that says what the worker may not do, and how to allow it."""
    who = f"user {connection.sasl.username!r}" if connection.sasl else "this client"
    what = "; ".join(str(each) for each in missing)
    return AccessRefusedError(
        f"the broker at {connection} does not allow {who}: {what}. Allow it with kafka-acls.sh (docs/security.md has "
        "the commands), or mend the RUGO_ setting of that name."
    )


def _holds(operations: int, operation: Operation) -> bool:
    return operations == _NOT_TOLD or bool(operations & _BITS[operation])


async def _on_topics(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, int]:
    try:
        answer: Any = await admin._send_request(_AuthorizedTopicsRequest(topics))  # there is no public way to ask
    except (NotImplementedError, IncompatibleBrokerVersion):  # before Kafka 2.3
        return {}
    refused = TopicAuthorizationFailedError.errno
    return {topic: 0 if code == refused else allowed for code, topic, _, _, allowed in answer.topics}


async def _on_group(admin: AIOKafkaAdminClient, group_id: str) -> int:
    try:
        coordinator = await admin.find_coordinator(group_id)
        answer: Any = await admin._send_request(_AuthorizedGroupRequest(group_id), coordinator)
    except GroupAuthorizationFailedError:
        return 0
    except (NotImplementedError, IncompatibleBrokerVersion):
        return _NOT_TOLD
    ((code, *_, allowed),) = answer.groups
    return 0 if code == GroupAuthorizationFailedError.errno else int(allowed)


async def _on_transactional_id(admin: AIOKafkaAdminClient, prefix: str) -> int:
    # Kafka tells no operations on these: whoever may not even describe one may not write with it.
    try:
        await admin.find_coordinator(f"{prefix}0", coordinator_type=1)
    except TransactionalIdAuthorizationFailed:
        return 0
    return _NOT_TOLD


class _AuthorizedTopicsResponse(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _AuthorizedTopicsStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _AuthorizedTopicsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _AuthorizedTopicsRequest(Request[_AuthorizedTopicsStruct]):
    """Metadata in the version that tells what the client may do, which aiokafka does not know."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_AuthorizedTopicsStruct]) -> _AuthorizedTopicsStruct:
        return request_struct_class(self._topics, False, False, True)


class _AuthorizedGroupStruct(DescribeGroupsRequest_v3):
    RESPONSE_TYPE = DescribeGroupsResponse_v3  # aiokafka's own has that of version 2, and does not see the answer's end


class _AuthorizedGroupRequest(Request[_AuthorizedGroupStruct]):
    API_KEY = 15

    def __init__(self, group_id: str) -> None:
        self._group_id = group_id

    def build(self, request_struct_class: type[_AuthorizedGroupStruct]) -> _AuthorizedGroupStruct:
        return request_struct_class([self._group_id], True)
