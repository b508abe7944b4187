"""What is told when a broker is away: that it won't let the worker in is believed only when it lasts."""

import pytest

from worker.core.failures import AccessRefusedError, BrokerUnavailableError
from worker.kafka import topics
from worker.kafka.broker_access import AccessFault
from worker.kafka.connection import BrokerConnection
from worker.kafka.topics import why_unavailable

HANGS_UP = AccessFault("it hangs up", is_certain=False)


async def told(monkeypatch: pytest.MonkeyPatch, *found: AccessFault | None) -> Exception:
    answers = list(found)

    async def find_access_fault(*_: object, **__: object) -> AccessFault | None:
        return answers.pop(0)

    monkeypatch.setattr(topics, "find_access_fault", find_access_fault)
    monkeypatch.setattr(topics, "_RETRY_S", 0.0)
    return await why_unavailable(BrokerConnection("broker:9092"), deadline_s=5.0, error=TimeoutError())


async def test_a_broker_that_hangs_up_while_it_stops_is_away_and_not_closed_to_us(monkeypatch):
    assert isinstance(await told(monkeypatch, HANGS_UP, None), BrokerUnavailableError)


async def test_a_broker_that_keeps_hanging_up_does_not_let_us_in(monkeypatch):
    assert isinstance(await told(monkeypatch, HANGS_UP, HANGS_UP, HANGS_UP), AccessRefusedError)


async def test_a_certain_fault_is_told_at_once(monkeypatch):
    assert isinstance(await told(monkeypatch, AccessFault("the certificate has expired")), AccessRefusedError)
