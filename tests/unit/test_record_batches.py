import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from worker.core.records import OutgoingRecord
from worker.kafka.record_batches import _HeaderKey, _TolerantBatchBuilder, _TolerantRecords, must_travel_alone

any_key = st.binary(max_size=8).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
any_headers = st.lists(st.tuples(any_key, st.none() | st.binary(max_size=8)), max_size=4)
any_records = st.lists(
    st.tuples(st.none() | st.binary(max_size=4), st.none() | st.binary(max_size=20), any_headers), max_size=5
)


def batch_of(records):
    builder = _TolerantBatchBuilder(is_transactional=False)
    for key, value, headers in records:
        builder.append(timestamp=1, key=key, value=value, headers=[(_HeaderKey(name), each) for name, each in headers])
    return bytes(builder._build())


def read(batches, reader=_TolerantRecords):
    records, found = reader(batches), []
    while records.has_next():
        found += [(each.key, each.value, list(each.headers)) for each in records.next_batch()]
    return found


@given(st.lists(any_records.filter(bool), max_size=3))
def test_whatever_header_keys_were_written_are_read_back_byte_for_byte(batches):
    assert read(b"".join(batch_of(each) for each in batches)) == [record for batch in batches for record in batch]


def test_the_client_library_alone_still_fails_on_a_header_key_that_is_not_utf_8():
    batch = batch_of([(b"k", b"v", []), (b"k", b"v", [("\udcff", b"")])])
    with pytest.raises(UnicodeDecodeError):
        read(batch, MemoryRecords)
    assert len(read(batch)) == 2


@pytest.mark.parametrize(
    ("record", "alone"),
    [
        (OutgoingRecord("t", b"k", b"v", (("имя", b"\xff"), ("h", None))), False),
        (OutgoingRecord("t", None, b"v"), False),
        (OutgoingRecord("t", None, None), True),
        (OutgoingRecord("t", b"k", b"v", (("\udcff", None),)), True),
        (OutgoingRecord("t", b"k", b"v" * 1_000_001), True),
        (OutgoingRecord("t", b"k", b"v", (("h", b"v" * 1_000_001),)), True),
    ],
)
def test_only_what_the_producer_would_fail_on_travels_alone(record, alone):
    assert must_travel_alone(record) == alone
