"""Looks for a record that breaks the worker, led by coverage: `make fuzz SECONDS=300`.

A record's value is either arbitrary bytes or almost a chat message, with arbitrary key, headers and timestamp. It goes through
decoding, the shipped tokenizer and model, scoring and event building, beside a good neighbour. What escapes, or leaves either
of the two without an outcome, is a finding; so is what takes longer than `-timeout`.
"""

import json
import sys

import atheris

with atheris.instrument_imports(include=["worker"]):
    from tests.fuzz.outcomes import NEIGHBOUR, outcomes_of
    from worker.core.records import Record

FIELDS = ("message_id", "chat_id", "text", "author", "operator_id", "sent_at", "channel", "x")


def fuzz_record(fuzzed: bytes) -> None:
    """Take one fuzzed record and its neighbour from decoding to their outgoing records."""
    record = record_of(atheris.FuzzedDataProvider(fuzzed))
    letters, events = outcomes_of([record, NEIGHBOUR])
    if len(letters) + len(events) != 2:
        raise AssertionError("a record without an outcome")
    for letter in letters:
        if (letter.key, letter.value, letter.headers[: len(record.headers)]) != (record.key, record.value, record.headers):
            raise AssertionError("a dead letter that is not its original")


def record_of(given: "atheris.FuzzedDataProvider") -> Record:
    """Return the record that the fuzzer's bytes stand for."""
    headers = tuple(
        (given.ConsumeBytes(6).decode("utf-8", "surrogateescape"), given.ConsumeBytes(6) or None)
        for _ in range(given.ConsumeIntInRange(0, 3))
    )
    timestamp_ms = given.ConsumeIntInRange(-(2**63), 2**63 - 1) if given.ConsumeBool() else 1_789_000_000_000
    key = given.ConsumeBytes(8) if given.ConsumeBool() else None
    return Record("in", 0, 0, timestamp_ms, key, value_of(given), headers)


def value_of(given: "atheris.FuzzedDataProvider") -> bytes | None:
    """Return raw bytes, or a chat message with some fields spoilt."""
    if given.ConsumeBool():
        return given.ConsumeBytes(sys.maxsize) or None
    fields = {"message_id": '"m"', "chat_id": '"c"', "text": '"ж"'}
    for _ in range(given.ConsumeIntInRange(0, 4)):
        name = FIELDS[given.ConsumeIntInRange(0, len(FIELDS) - 1)]
        size = given.ConsumeIntInRange(0, 200)
        fields[name] = json.dumps(given.ConsumeUnicode(size)) if given.ConsumeBool() else given.ConsumeUnicodeNoSurrogates(size)
    fields["text"] = json.dumps(given.ConsumeUnicodeNoSurrogates(sys.maxsize)) if given.ConsumeBool() else fields["text"]
    return ("{" + ",".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode("utf-8", "surrogatepass")


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_record)
    atheris.Fuzz()
