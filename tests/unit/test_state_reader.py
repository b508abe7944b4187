import pytest

from tests.support.kafka_server import free_ports
from tests.unit.test_recall import POLICY
from worker.core.escalation_states import EscalationStates
from worker.core.failures import BrokerUnavailableError
from worker.core.records import TopicNames, TopicPartition
from worker.kafka.connection import BrokerConnection
from worker.kafka.state_reader import StateReader


class Group:
    async def position(self, _partition):
        return 7


async def test_a_worker_that_can_not_read_what_it_should_remember_does_not_go_on():
    [port] = free_ports(1)
    reader = StateReader(
        BrokerConnection(f"127.0.0.1:{port}"),
        TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq"),
        states=EscalationStates(POLICY, max_chats=10),
        consumer=Group,
        deadline_s=1.0,
        max_disorder=16,
    )
    await reader.restore([])
    with pytest.raises(BrokerUnavailableError, match=r"could not be read from chat\.emotions.*RUGO_BROKER_DEADLINE_S"):
        await reader.restore([TopicPartition("chat.messages", 0)])
