import pytest

from worker.core.failures import RejectionFloodError
from worker.core.rejection_flood import RejectionWindow


def test_rejects_within_the_share_never_stop():
    window = RejectionWindow(max_share=0.5, window=10)
    for _ in range(50):
        window.observe([True, False])


def test_more_than_the_share_in_a_full_window_stops():
    window = RejectionWindow(max_share=0.5, window=10)
    window.observe([False] * 5 + [True] * 4)
    window.observe([True])
    with pytest.raises(RejectionFloodError, match="6 of the last 10"):
        window.observe([True])


def test_nothing_is_concluded_before_the_window_is_full():
    RejectionWindow(max_share=0.5, window=10).observe([True] * 9)


def test_a_share_of_one_switches_the_check_off():
    RejectionWindow(max_share=1.0, window=10).observe([True] * 1000)
