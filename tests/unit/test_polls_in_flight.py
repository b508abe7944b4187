import asyncio

import pytest

from tests.support.records import make_record
from worker.kafka.polls_in_flight import PollsInFlight


class Stations:
    """The stations of a poll's journey, which a test opens; notes who is where, in order. A poll goes by its offset."""

    def __init__(self):
        self.noted = []
        self.scoring = {}
        self.settling = {}
        self.failures = []

    async def score(self, records):
        name = records[0].offset
        self.noted.append(f"score {name}")
        await self.scoring.setdefault(name, asyncio.Event()).wait()
        return name

    async def settle(self, name):
        self.noted.append(f"settle {name}")
        await self.settling.setdefault(name, asyncio.Event()).wait()
        self.noted.append(f"settled {name}")

    def finish_scoring(self, *names):
        for name in names:
            self.scoring.setdefault(name, asyncio.Event()).set()

    def finish_settling(self, *names):
        for name in names:
            self.settling.setdefault(name, asyncio.Event()).set()

    @property
    def settled(self):
        return [each for each in self.noted if each.startswith("settled")]


@pytest.fixture
async def stations():
    return Stations()


@pytest.fixture
async def polls(stations):
    return PollsInFlight(stations.score, stations.settle, on_failure=stations.failures.append)


def poll(name):
    return [make_record(b"", offset=name)]


async def until_nothing_moves():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_next_poll_is_scored_while_one_is_being_settled(polls, stations):
    stations.finish_scoring(1)
    await polls.take(poll(1))
    await polls.take(poll(2))
    await until_nothing_moves()
    assert stations.noted == ["score 1", "settle 1", "score 2"]


async def test_polls_are_settled_one_by_one_in_the_order_in_which_they_were_taken(polls, stations):
    await polls.take(poll(1))
    await polls.take(poll(2))
    stations.finish_scoring(2)
    await until_nothing_moves()
    stations.finish_scoring(1)
    await until_nothing_moves()
    assert stations.noted == ["score 1", "score 2", "settle 1"]
    stations.finish_settling(1, 2)
    assert await polls.wait_until_idle(timeout_s=5)
    assert stations.noted[2:] == ["settle 1", "settled 1", "settle 2", "settled 2"]


async def test_reading_waits_when_three_polls_are_in_flight(polls, stations):
    await polls.take(poll(1))
    await polls.take(poll(2))
    third = asyncio.create_task(polls.take(poll(3)))
    await until_nothing_moves()
    assert not third.done()
    stations.finish_scoring(1)
    stations.finish_settling(1)
    await asyncio.wait_for(third, 5)
    assert len(polls) == 2


@pytest.mark.parametrize("station", ["score", "settle"])
async def test_after_a_failure_nothing_later_is_settled_and_the_first_failure_is_told_once(polls, stations, station):
    async def fail(_):
        raise OSError("broken")

    setattr(polls, f"_{station}", fail)
    await polls.take(poll(1))
    await polls.take(poll(2))
    stations.finish_scoring(1, 2)
    stations.finish_settling(1, 2)
    assert await polls.wait_until_idle(timeout_s=5)
    assert stations.settled == []
    assert [str(each) for each in stations.failures] == ["broken"]


async def test_what_was_taken_before_a_failure_is_settled_all_the_same(polls, stations):
    await polls.take(poll(1))
    await until_nothing_moves()
    polls._score = None  # calling it fails
    await polls.take(poll(2))
    await until_nothing_moves()
    stations.finish_scoring(1)
    stations.finish_settling(1)
    assert await polls.wait_until_idle(timeout_s=5)
    assert stations.settled == ["settled 1"]
    assert len(stations.failures) == 1


async def test_what_is_dropped_is_never_settled_and_later_polls_are(polls, stations):
    await polls.take(poll(1))
    await polls.take(poll(2))
    stations.finish_scoring(1, 2, 3)
    await until_nothing_moves()
    await polls.drop()
    assert len(polls) == 0
    stations.finish_settling(1, 2, 3)
    await polls.take(poll(3))
    assert await polls.wait_until_idle(timeout_s=5)
    assert stations.settled == ["settled 3"]
    assert stations.failures == []


async def test_waiting_for_idleness_is_bounded(polls):
    assert await polls.wait_until_idle(timeout_s=0.01)
    await polls.take(poll(1))
    assert not await polls.wait_until_idle(timeout_s=0.01)
    await polls.drop()
