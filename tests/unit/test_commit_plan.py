from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import make_record
from worker.core.commit_plan import next_offsets
from worker.core.records import TopicPartition

P0, P1 = TopicPartition("chat.messages", 0), TopicPartition("chat.messages", 1)


def test_the_next_offset_is_one_past_the_last_settled_record_of_each_owned_partition():
    settled = [
        make_record(b"", partition=0, offset=7),
        make_record(b"", partition=1, offset=3),
        make_record(b"", partition=0, offset=8),
    ]
    assert next_offsets(settled, owned={P0, P1}) == {P0: 9, P1: 4}
    assert next_offsets(settled, owned={P1}) == {P1: 4}
    assert next_offsets(settled, owned=set()) == {}


@given(st.permutations([make_record(b"", partition=each % 2, offset=each) for each in range(8)]))
def test_the_order_of_the_records_makes_no_difference(settled):
    assert next_offsets(settled, owned={P0, P1}) == {P0: 7, P1: 8}
