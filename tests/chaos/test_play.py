"""When a run says that its workers are stuck."""

import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.chaos import play


def played(left: Iterator[int | None]) -> SimpleNamespace:
    """A run of which so much is uncommitted each time that one looks; None is a broker that can't say."""
    return SimpleNamespace(world=SimpleNamespace(unsettled=lambda: next(left), crew=SimpleNamespace(tend=lambda: None)))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "_STUCK_S", 0.2)
    monkeypatch.setattr(play, "_TICK_S", 0.01)


def test_what_falls_to_nothing_is_drained_whatever_it_does_on_the_way():
    assert play.drain(played(iter([None, 30, 40, None, 20, 0])), print)
    assert play.drain(played(iter([0])), print)


@pytest.mark.parametrize("left", [itertools.repeat(5), itertools.count(5), itertools.cycle([5, 9]), itertools.repeat(None)])
def test_what_does_not_fall_is_stuck(left):
    assert not play.drain(played(left), print)
