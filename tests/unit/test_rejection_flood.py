import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.failures import RejectionFloodError
from worker.core.records import TopicPartition
from worker.core.rejection_flood import RejectionWindow

FIRST, SECOND = TopicPartition("in", 0), TopicPartition("in", 1)


def of(partition, *rejected):
    return [(partition, each) for each in rejected]


def test_rejects_within_the_share_never_stop():
    window = RejectionWindow(max_share=0.5, window=10)
    for _ in range(50):
        window.observe(of(FIRST, True, False))


def test_more_than_the_share_in_a_full_window_stops():
    window = RejectionWindow(max_share=0.5, window=10)
    window.observe(of(FIRST, *[False] * 5, *[True] * 4))
    window.observe(of(SECOND, True))
    with pytest.raises(RejectionFloodError, match="6 of the last 10"):
        window.observe(of(SECOND, True))


def test_nothing_is_concluded_before_the_window_is_full():
    RejectionWindow(max_share=0.5, window=10).observe(of(FIRST, *[True] * 9))


def test_a_share_of_one_switches_the_check_off():
    RejectionWindow(max_share=1.0, window=10).observe(of(FIRST, *[True] * 1000))


def test_a_worker_that_is_started_again_stops_at_the_same_record():
    window = RejectionWindow(max_share=0.5, window=10)
    window.observe([*of(FIRST, *[False] * 4, *[True] * 3), *of(SECOND, False, True, True)])
    notes = {each: window.note(each) for each in (FIRST, SECOND)}
    assert notes == {FIRST: "rejected 3 of 7", SECOND: "rejected 2 of 3"}
    again = RejectionWindow(max_share=0.5, window=10)
    again.recall(notes)
    with pytest.raises(RejectionFloodError, match="6 of the last 10"):
        again.observe(of(FIRST, True))


def test_what_left_the_window_is_noted_no_more():
    window = RejectionWindow(max_share=0.5, window=4)
    window.observe([*of(FIRST, True, False), *of(SECOND, *[False] * 4)])
    assert (window.note(FIRST), window.note(SECOND)) == ("", "rejected 0 of 4")


def test_a_recall_begins_anew_and_passes_over_the_notes_of_others():
    window = RejectionWindow(max_share=0.5, window=4)
    window.observe(of(FIRST, True, True, False))
    window.recall({FIRST: "", SECOND: "rejected many of 10", TopicPartition("in", 2): "rejected 0 of 0"})
    window.observe(of(FIRST, True, False, True, False))
    assert window.note(FIRST) == "rejected 2 of 4"


@given(st.lists(st.integers(0, 50).flatmap(lambda records: st.tuples(st.integers(0, records), st.just(records))), max_size=6))
def test_what_several_workers_noted_fills_a_window_in_their_proportions(counts):
    window = RejectionWindow(max_share=1.0, window=40)
    window.recall({TopicPartition("in", i): f"rejected {each[0]} of {each[1]}" for i, each in enumerate(counts)})
    notes = [window.note(TopicPartition("in", i)) for i in range(len(counts))]
    kept = [tuple(map(int, note.split()[1::2])) if note else (0, 0) for note in notes]
    assert sum(records for _, records in kept) <= 40
    if sum(records for _, records in counts) <= 40:
        assert kept == [each if each[1] else (0, 0) for each in counts]
    for (rejected, records), (kept_rejected, kept_records) in zip(counts, kept, strict=True):
        assert kept_rejected * records >= rejected * kept_records  # never milder than it was
