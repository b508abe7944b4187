import asyncio

import pytest
from aiokafka.errors import IllegalOperation, KafkaConnectionError, KafkaError, ProducerFenced

from tests.support.records import make_record
from worker.core.failures import WorkerError
from worker.core.records import Outcome, OutgoingRecord, TopicPartition
from worker.kafka import publisher, transactions
from worker.kafka.connection import BrokerConnection

FIRST, SECOND = TopicPartition("chat.messages", 0), TopicPartition("chat.messages", 1)


class Producer:
    """A transactional producer that notes what it is asked. `refuses` is raised when the broker would confirm a record,
    `ends_with` is what its transaction has ended with by the next send.
    """

    def __init__(self, journal, *, transactional_id, **_):
        self.id = transactional_id
        self.journal = journal
        self.refuses = self.ends_with = None
        self._txn_manager = self
        journal.producers[transactional_id] = self

    def note(self, step):
        self.journal.steps.append((self.id, step))

    async def start(self):
        self.note("start")

    async def stop(self):
        self.note("stop")

    async def begin_transaction(self):
        self.note("begin")

    def wait_for_transaction_end(self):
        self.ended = asyncio.get_running_loop().create_future()
        return self.ended

    async def send(self, *_, value, **__):
        if self.ends_with:
            self.ended.set_exception(self.ends_with)
            raise IllegalOperation("Can't send messages while not in transaction")
        self.note(value.decode())
        confirmed = asyncio.get_running_loop().create_future()
        if self.refuses:
            confirmed.set_exception(self.refuses)
        else:
            confirmed.set_result(None)
        return confirmed

    async def send_offsets_to_transaction(self, offsets, group_id):
        self.note({(group_id, each.partition): offset for each, (offset, _) in offsets.items()})

    async def commit_transaction(self):
        self.note("commit")

    async def abort_transaction(self):
        self.note("abort")


class Journal:
    """Everything that a delivery asks of its producers and of the consumer, in order."""

    def __init__(self):
        self.steps = []
        self.producers = {}
        self.failures = []
        self.lost = 0

    async def seek_to_committed(self, *partitions):
        self.steps.append(("consumer", f"seek {[each.partition for each in partitions]}"))

    def of(self, partition):
        return [step for name, step in self.steps if name == f"group-chat.messages-{partition}"]

    def note_lost(self):
        self.lost += 1


@pytest.fixture
def journal():
    return Journal()


@pytest.fixture
async def delivery(journal, monkeypatch):
    monkeypatch.setattr(transactions, "AIOKafkaProducer", lambda **options: Producer(journal, **options))
    made = transactions.ExactlyOnce(
        BrokerConnection("kafka:9092"),
        group_id="group",
        client_id="worker",
        consumer=lambda: journal,
        deadline_s=5.0,
        session_timeout_s=0.05,
        on_lost=journal.note_lost,
        on_failure=journal.failures.append,
    )
    await made.prepare([FIRST, SECOND])
    yield made
    await made.release()


def outcome(name, *, partition, offset):
    sent = OutgoingRecord("chat.emotions", b"chat", name.encode())
    return Outcome(make_record(b"{}", partition=partition, offset=offset), (sent,))


async def test_partitions_are_taken_over_before_their_committed_offsets_are_read(delivery, journal):
    assert [step for _, step in journal.steps] == ["start", "start", "seek [0, 1]"]


async def test_each_partitions_events_and_its_next_offset_are_one_transaction(delivery, journal):
    lost = await delivery.publish(
        [outcome("a", partition=0, offset=7), outcome("b", partition=1, offset=3), outcome("c", partition=0, offset=8)]
    )
    assert not lost
    assert sorted(map(str, journal.of(0)[2:-1])) == ["a", "c", "{('group', 0): 9}"]
    assert sorted(map(str, journal.of(1)[2:-1])) == ["b", "{('group', 1): 4}"]
    assert all((steps[1], steps[-1]) == ("begin", "commit") for steps in (journal.of(0), journal.of(1)))


async def test_a_partition_whose_producer_is_barred_is_lost_and_the_others_go_on(delivery, journal):
    journal.producers["group-chat.messages-0"].refuses = ProducerFenced()
    poll = [outcome("a", partition=0, offset=7), outcome("b", partition=1, offset=3)]
    assert await delivery.publish(poll) == {FIRST}
    assert "commit" not in journal.of(0)
    assert journal.of(1)[-1] == "commit"
    before = journal.of(0)
    assert await delivery.publish(poll) == {FIRST}
    assert journal.of(0) == before
    assert journal.lost == 1


async def test_a_producer_that_is_barred_between_two_sends_loses_its_partition_too(delivery, journal):
    """aiokafka then says of the next send that there is no transaction; why not, it says of the transaction's end."""
    journal.producers["group-chat.messages-0"].ends_with = ProducerFenced()
    poll = [outcome("a", partition=0, offset=7), outcome("b", partition=1, offset=3)]
    assert await delivery.publish(poll) == {FIRST}
    assert journal.of(1)[-1] == "commit"


async def test_a_partition_that_is_lost_but_stays_assigned_ends_the_worker(delivery, journal):
    journal.producers["group-chat.messages-0"].refuses = ProducerFenced()
    await delivery.publish([outcome("a", partition=0, offset=7)])
    async with asyncio.timeout(5):
        while not journal.failures:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    assert "RUGO_GROUP_ID" in str(journal.failures[0])


async def test_a_lost_partition_that_is_revoked_and_assigned_again_is_worked_on(delivery, journal):
    journal.producers["group-chat.messages-0"].refuses = ProducerFenced()
    await delivery.publish([outcome("a", partition=0, offset=7)])
    await delivery.release()
    await delivery.prepare([FIRST])
    assert not await delivery.publish([outcome("a", partition=0, offset=7)])
    assert journal.of(0)[-1] == "commit"
    await asyncio.sleep(0.1)  # the lost partition's time, which must not run any more
    assert journal.failures == []


async def test_a_record_that_is_refused_ends_its_transaction_and_the_worker(delivery, journal):
    journal.producers["group-chat.messages-0"].refuses = KafkaError("no")
    with pytest.raises(WorkerError, match="refuses"):
        await delivery.publish([outcome("a", partition=0, offset=7)])
    assert journal.of(0)[-2:] == ["abort", "stop"]
    assert "commit" not in journal.of(0)


async def test_a_transaction_that_is_cut_short_is_ended_and_its_producer_not_used_again(delivery, journal):
    producer = journal.producers["group-chat.messages-0"]
    waiting = asyncio.Event()

    async def wait_for_ever():
        waiting.set()
        await asyncio.Event().wait()

    producer.commit_transaction = wait_for_ever
    publishing = asyncio.create_task(delivery.publish([outcome("a", partition=0, offset=7)]))
    await waiting.wait()
    publishing.cancel()
    await asyncio.wait([publishing])
    assert journal.of(0)[-2:] == ["abort", "stop"]


async def test_a_producer_that_finds_no_broker_yet_is_started_again(journal, monkeypatch):
    monkeypatch.setattr(publisher, "_RETRY_S", 0.0)
    producer, failures = Producer(journal, transactional_id="p"), [KafkaConnectionError("nobody there"), None]

    async def start():
        producer.note("start")
        if (failure := failures.pop(0)) is not None:
            raise failure

    producer.start = start
    await publisher.connect(producer)
    assert journal.steps == [("p", "start"), ("p", "start")]
