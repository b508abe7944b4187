"""A live board on a port of its own, in a thread, fed by the test in place of Kafka."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from worker.board.feed import BoardFeed
from worker.board.run import listening_socket, serve_board
from worker.board.server import allowed_hosts
from worker.contracts.outbound import EmotionEvent, EscalationEvent
from worker.core.labels import tone_of
from worker.core.records import Record, TopicNames

NAMES = TopicNames("chat.messages", "chat.emotions", "chat.escalations", "chat.messages.dlq")
MODEL = {"name": "test", "version": "1", "digest": "sha256:0"}
_numbers = itertools.count()


class BoardStand:
    """The board's own server, viewers and state; only the reader of Kafka is the test's."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, feed: BoardFeed) -> None:
        self.url = url
        self.feed = feed
        self._loop = loop

    def tell(self, kind: str, *topics: str) -> None:
        self.call(lambda: self.feed.tell(kind, topics))

    def take(self, *records: Record) -> None:
        self.call(lambda: self.feed.take(records))

    def call(self, action: Callable[[], Any]) -> Any:
        async def act() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(30)


@contextmanager
def board_stand(*, shows_texts: bool = False, host_names: Sequence[str] = (), port: int = 0) -> Iterator[BoardStand]:
    """Run a board for as long as the context lasts."""
    ready: list[BoardStand] = []
    begun, over = threading.Event(), threading.Event()

    def sources(feed: BoardFeed) -> Iterable[Coroutine[Any, Any, None]]:
        async def until_over() -> None:
            feed.tell("live")
            loop = asyncio.get_running_loop()
            ready.append(BoardStand(f"http://127.0.0.1:{listener.getsockname()[1]}/", loop, feed))
            begun.set()
            await loop.run_in_executor(None, over.wait)

        return [until_over()]

    with listening_socket("127.0.0.1", port) as listener:
        feed = BoardFeed(NAMES, shows_texts=shows_texts)
        hosts = allowed_hosts("127.0.0.1", host_names)
        thread = threading.Thread(
            target=lambda: asyncio.run(serve_board(feed, listener, hosts=hosts, sources=sources)), daemon=True
        )
        thread.start()
        assert begun.wait(30), "the board did not start"
        try:
            yield ready[0]
        finally:
            over.set()
            thread.join(30)
            assert not thread.is_alive(), "the board did not stop"


def heard(
    chat: str,
    negativity: float = 0.0,
    *labels: str,
    author: str = "client",
    operator: str | None = "op-anna",
    ago_s: float = 0.0,
    latency_s: float = 0.2,
    now_s: float | None = None,
) -> EmotionEvent:
    """Return an emotion event sent `ago_s` before `now_s` (by default: now)."""
    number = next(_numbers)
    sent_s = (time.time() if now_s is None else now_s) - ago_s
    return EmotionEvent.model_validate(
        {
            "event_id": f"emotion:chat.messages-0-{number}",
            "message_id": f"m-{number}",
            "chat_id": chat,
            "author": author,
            "operator_id": operator,
            "emotions": [{"label": each, "probability": 0.9, "threshold": 0.4} for each in labels],
            "tone": tone_of(labels),
            "negativity": negativity,
            "model": MODEL,
            "sent_at": datetime.fromtimestamp(sent_s, UTC),
            "classified_at": datetime.fromtimestamp(sent_s + latency_s, UTC),
            "truncated": False,
            "source": {"topic": "chat.messages", "partition": 0, "offset": number},
        }
    )


def raised(
    chat: str,
    severity: float = 0.9,
    *labels: str,
    operator: str | None = "op-anna",
    reason: str = "severe_message",
    ago_s: float = 0.0,
    now_s: float | None = None,
) -> EscalationEvent:
    """Return an escalation whose only evidence was sent `ago_s` before `now_s` (by default: now)."""
    number = next(_numbers)
    sent_at = datetime.fromtimestamp((time.time() if now_s is None else now_s) - ago_s, UTC)
    emotions = [{"label": each, "probability": 0.9, "threshold": 0.4} for each in labels or ("anger",)]
    evidence = {"message_id": f"m-{number}", "emotions": emotions, "negativity": severity, "sent_at": sent_at}
    return EscalationEvent.model_validate(
        {
            "event_id": f"escalation:chat.messages-0-{number}",
            "chat_id": chat,
            "operator_id": operator,
            "reason": reason,
            "severity": severity,
            "evidence": [evidence],
            "raised_at": sent_at,
            "model": MODEL,
        }
    )


def record(event: EmotionEvent | EscalationEvent) -> Record:
    """Return the record that an event arrives as."""
    topic = NAMES.emotions if isinstance(event, EmotionEvent) else NAMES.escalations
    return _record(topic, event.chat_id, event.model_dump_json().encode())


def written(chat: str, text: str, *, author: str = "client") -> Record:
    """Return a record of the input topic."""
    value = {"message_id": f"m-{next(_numbers)}", "chat_id": chat, "text": text, "author": author}
    return _record(NAMES.input, chat, json.dumps(value, ensure_ascii=False).encode())


def _record(topic: str, chat: str, value: bytes) -> Record:
    return Record(topic, 0, next(_numbers), int(time.time() * 1000), chat.encode(), value, ())
