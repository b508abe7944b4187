import json
from itertools import islice

from worker.demo_shift import Shift

LINES = [
    {"message_id": "m-1", "chat_id": "food-1", "text": "Где пицца?", "sent_at": "2026-01-01T00:00:00Z"},
    {"message_id": "m-2", "chat_id": "food-1", "text": "Алло!"},
]


def chats_file(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text(
        "\n".join([*(json.dumps(each, ensure_ascii=False) for each in LINES), '{"chat_id": ', ""]), encoding="utf-8"
    )
    return path


def test_the_chats_come_again_under_new_ids_and_sent_now(tmp_path):
    taken = list(islice(Shift(chats_file(tmp_path)).lines(), 6))
    first, _, broken, again, *_ = taken
    assert (json.loads(first[0])["chat_id"], first[1]) == ("food-1", b"food-1")
    assert json.loads(first[0])["sent_at"] > "2026-01-02"
    assert broken == (b'{"chat_id": ', None)
    assert (json.loads(again[0])["message_id"], again[1]) == ("m-1-2", b"food-1-2")


def test_another_operator_joins_an_escalated_chat_some_time_later(tmp_path):
    now_s = 0.0
    shift = Shift(chats_file(tmp_path), clock=lambda: now_s)
    lines = shift.lines()
    shift.note_escalation({"chat_id": "food-1", "operator_id": "op-vera"})
    assert all(b"joined" not in value for value, _ in islice(lines, 5))
    now_s = 600.0
    (joined,) = [json.loads(value) for value, _ in islice(lines, 5) if b"joined" in value]
    assert (joined["chat_id"], joined["author"]) == ("food-1", "operator")
    assert joined["operator_id"] not in (None, "op-vera")
