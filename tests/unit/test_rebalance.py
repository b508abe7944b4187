import asyncio

import pytest
from aiokafka import TopicPartition as KafkaTopicPartition

from worker.kafka.polls_in_flight import PollsInFlight
from worker.kafka.rebalance import RebalanceListener

ASSIGNED = [KafkaTopicPartition("chat.messages", 0), KafkaTopicPartition("chat.messages", 2)]


class Steps:
    """A consumer and everything that a listener calls; notes the calls in order."""

    def __init__(self):
        self.noted = []
        self.may_go_on = asyncio.Event()
        self.error = None

    def pause(self, *_partitions):
        self.noted.append("pause")

    def resume(self, *_partitions):
        self.noted.append("resume")

    async def prepare(self, _partitions):
        self.noted.append("prepare")

    async def release(self):
        self.noted.append("release")

    async def score(self, records):
        return records

    async def settle(self, _scored):
        self.noted.append("settling")
        await self.may_go_on.wait()
        self.noted.append("settled")

    async def restore(self, _partitions):
        self.noted.append("restore")
        if self.error:
            raise self.error
        await self.may_go_on.wait()


@pytest.fixture
async def steps():
    return Steps()


@pytest.fixture
async def polls(steps):
    return PollsInFlight(steps.score, steps.settle, on_failure=steps.noted.append)


@pytest.fixture
async def listener(steps, polls):
    return RebalanceListener(
        polls,
        consumer=lambda: steps,
        timeout_s=0.2,
        on_revoked=lambda partitions: steps.noted.append(f"revoked {len(partitions)}"),
        on_assigned=lambda partitions: steps.noted.append(f"assigned {len(partitions)}"),
        prepare=steps.prepare,
        release=steps.release,
        restore=steps.restore,
        on_failure=steps.noted.append,
    )


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def test_records_wait_until_the_partitions_are_ready_and_the_group_does_not_wait_with_them(listener, steps):
    await listener.on_partitions_assigned(ASSIGNED)
    await until(lambda: "restore" in steps.noted)
    assert steps.noted == ["pause", "assigned 2", "prepare", "restore"]
    steps.may_go_on.set()
    await until(lambda: "resume" in steps.noted)


@pytest.mark.parametrize("end", [lambda listener: listener.on_partitions_revoked(ASSIGNED), RebalanceListener.stop])
async def test_partitions_that_go_before_they_are_ready_are_never_resumed(listener, steps, end):
    await listener.on_partitions_assigned(ASSIGNED)
    await until(lambda: "restore" in steps.noted)
    await end(listener)
    steps.may_go_on.set()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert "resume" not in steps.noted


async def test_a_failure_to_get_ready_is_told_and_the_partitions_stay_paused(listener, steps):
    steps.error = OSError("unreadable")
    await listener.on_partitions_assigned(ASSIGNED)
    await until(lambda: steps.error in steps.noted)
    assert "resume" not in steps.noted


async def test_what_is_in_flight_is_settled_before_its_partitions_go(listener, polls, steps):
    await polls.take([])
    revocation = asyncio.create_task(listener.on_partitions_revoked(ASSIGNED))
    await until(lambda: "settling" in steps.noted)
    steps.may_go_on.set()
    await revocation
    assert steps.noted == ["settling", "settled", "release", "revoked 2"]


async def test_what_takes_longer_than_a_revocation_may_is_dropped_for_good(listener, polls, steps):
    await polls.take([])
    await polls.take([])
    await listener.on_partitions_revoked(ASSIGNED)
    steps.may_go_on.set()
    assert (len(polls), steps.noted) == (0, ["settling", "release", "revoked 2"])
