from datetime import UTC, datetime

import pytest
from aiokafka.errors import IllegalStateError, NodeNotReadyError

from tests.support.processes import free_ports
from tests.unit.test_recall import POLICY
from worker.core.escalation_states import EscalationStates
from worker.core.failures import BrokerUnavailableError
from worker.core.records import TopicNames, TopicPartition
from worker.kafka import state_reader
from worker.kafka.connection import BrokerConnection
from worker.kafka.state_reader import StateReader

PARTITION = TopicPartition("chat.messages", 0)


class Group:
    async def position(self, _partition):
        return 7


def make_reader(port, *, consumer=Group, deadline_s=1.0):
    return StateReader(
        BrokerConnection(f"127.0.0.1:{port}"),
        TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq"),
        states=EscalationStates(POLICY, max_chats=10),
        consumer=consumer,
        deadline_s=deadline_s,
        max_disorder=16,
        now=lambda: datetime.now(UTC),
    )


async def test_a_worker_that_can_not_read_what_it_should_remember_does_not_go_on():
    [port] = free_ports(1)
    reader = make_reader(port)
    await reader.restore([])
    with pytest.raises(BrokerUnavailableError, match=r"could not be read from chat\.emotions.*RUGO_BROKER_DEADLINE_S"):
        await reader.restore([PARTITION])


@pytest.fixture
def no_wait(monkeypatch):
    monkeypatch.setattr(state_reader, "_RETRY_S", 0.0)


async def test_a_broker_that_is_not_ready_yet_is_asked_again(no_wait, monkeypatch):
    answers = iter([NodeNotReadyError(), TimeoutError(), {}])
    asked = []

    async def recall(_self, partitions, _deadline):
        asked.append(partitions)
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(StateReader, "_recall", recall)
    await make_reader(1, deadline_s=30.0).restore([PARTITION])
    assert asked == [[PARTITION]] * 3


async def test_a_partition_that_was_revoked_in_the_meantime_is_no_failure_of_the_broker(no_wait):
    class Revoked:
        async def position(self, partition):
            raise IllegalStateError(f"{partition} is not assigned")

    with pytest.raises(IllegalStateError):
        await make_reader(1, consumer=Revoked, deadline_s=30.0).restore([PARTITION])
