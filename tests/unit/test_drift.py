import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.drift import LabelCounts, LabelWindow, drift_by_label, overall_drift

LABELS = ("anger", "gratitude", "joy")
MESSAGES = st.lists(st.frozensets(st.sampled_from(LABELS)), min_size=1, max_size=60)


def counted(messages):
    window = LabelWindow(len(messages))
    for each in messages:
        window.observe(each)
    return window.counts()


def with_every_label(counts):
    return LabelCounts(counts.messages, {label: counts.given.get(label, 0) for label in LABELS}, counts.unlabelled)


def test_a_textbook_example_comes_out():
    """Shares 20/30/50 that became 25/25/50: 0.05·ln(1.25) + (−0.05)·ln(25/30) = 0.0203."""
    then = LabelCounts(1_000_000, {"anger": 200_000, "joy": 300_000}, 500_000)
    now = LabelCounts(1_000_000, {"anger": 250_000, "joy": 250_000}, 500_000)
    expected = 0.05 * math.log(0.25 / 0.20) - 0.05 * math.log(0.25 / 0.30)
    assert overall_drift(now, then) == pytest.approx(expected, abs=1e-5)
    anger = 0.05 * math.log(0.25 / 0.20) - 0.05 * math.log(0.75 / 0.80)
    assert drift_by_label(now, then)["anger"] == pytest.approx(anger, abs=1e-5)


@given(MESSAGES, MESSAGES)
def test_drift_is_never_negative_and_the_same_in_both_directions(some, others):
    now, then = with_every_label(counted(some)), with_every_label(counted(others))
    assert overall_drift(now, then) >= 0
    assert overall_drift(now, then) == pytest.approx(overall_drift(then, now))
    for label, drift in drift_by_label(now, then).items():
        assert drift >= 0
        assert drift == pytest.approx(drift_by_label(then, now)[label])


@given(MESSAGES, st.integers(1, 50))
def test_there_is_none_between_equal_shares_of_any_number_of_messages(messages, times):
    counts = with_every_label(counted(messages))
    more = LabelCounts(
        counts.messages * times, {label: n * times for label, n in counts.given.items()}, counts.unlabelled * times
    )
    assert overall_drift(more, counts) == pytest.approx(0, abs=1e-9)
    assert list(drift_by_label(more, counts).values()) == pytest.approx([0] * len(LABELS), abs=1e-9)


def test_a_label_that_was_never_given_before_counts_much_but_not_infinitely():
    then = LabelCounts(1000, {"anger": 0.0, "joy": 500.0}, 500.0)
    now = LabelCounts(1000, {"anger": 300, "joy": 400}, 300)
    assert 0.25 < overall_drift(now, then) < 3
    assert 0.25 < drift_by_label(now, then)["anger"] < 3


def test_chance_alone_stays_under_the_first_band_and_another_mood_does_not():
    chance = random.Random(0)
    shares = {"anger": 0.1, "gratitude": 0.2, "joy": 0.05}
    then = LabelCounts(1700, {label: share * 1700 for label, share in shares.items()}, 0.7 * 1700)

    def heard(shares):
        return counted([[label for label, share in shares.items() if chance.random() < share] for _ in range(1000)])

    assert overall_drift(heard(shares), then) < 0.1
    assert overall_drift(heard({**shares, "anger": 0.5}), then) > 0.25


@given(st.lists(st.frozensets(st.sampled_from(LABELS)), max_size=40), st.integers(1, 10))
def test_a_window_counts_the_newest_messages_and_no_others(messages, size):
    window = LabelWindow(size)
    for each in messages:
        window.observe(each)
    newest, counts = messages[-size:], window.counts()
    assert counts.messages == len(newest)
    assert counts.unlabelled == sum(not each for each in newest)
    assert {label: count for label, count in counts.given.items() if count} == {
        label: sum(label in each for each in newest) for label in LABELS if any(label in each for each in newest)
    }
