"""Feeds the board: records into its state, and a picture of it to the viewers a few times a second."""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from pydantic import ValidationError

from worker.board.server import Show
from worker.board.state import BoardState
from worker.board.window import Picture, Source, picture_of
from worker.contracts.outbound import EmotionEvent, EscalationEvent
from worker.core.decode import decode_record
from worker.core.records import Decoded, Record, TopicNames

_TICK_S = 0.5
_IDLE_TICKS = 4  # the counters go out this often when nothing happens

_log = structlog.get_logger(__name__)


class BoardFeed:
    """What a source tells, it takes; `show` is what the viewers see. Lives on the event loop."""

    def __init__(self, names: TopicNames, *, shows_texts: bool, now: Callable[[], float] = time.time) -> None:
        self.show = Show()
        self.state = BoardState()
        self.lag: int | None = None
        self._names = names
        self._shows_texts = shows_texts
        self._now = now
        self._source = Source("connecting", now())
        self._unreadable = 0

    def tell(self, kind: str, topics: tuple[str, ...] = ()) -> None:
        """Note how the source is, as the reader says it."""
        self._source = Source(kind, self._now(), topics)

    def take(self, records: Sequence[Record]) -> None:
        """Take in records of any of the topics; what can't be read is left out."""
        for record in records:
            try:
                self._take(record)
            except ValidationError:
                self._unreadable += 1
                if self._unreadable == 1:
                    _log.warning("a record is no event of this worker and is left out", position=record.position)

    async def draw(self) -> None:
        """Give the show a new picture when something changed, and every other second; until cancelled."""
        drawn: tuple[int, Source] | None = None
        idle_ticks = 0
        while True:
            idle_ticks += 1
            if not self.show.viewers:
                self.show.picture = drawn = None  # who comes next is not shown an old one
            elif drawn != (self.state.version, self._source) or idle_ticks >= _IDLE_TICKS:
                idle_ticks = 0
                self.show.put(self._picture())
                drawn = (self.state.version, self._source)
            await asyncio.sleep(_TICK_S)

    def _take(self, record: Record) -> None:
        # Unknown fields are ignored: the worker may be newer than the board.
        if record.topic == self._names.emotions:
            event = EmotionEvent.model_validate_json(record.value or b"", extra="ignore")
            self.state.hear(event, now_s=self._now())
        elif record.topic == self._names.escalations:
            self.state.escalate(EscalationEvent.model_validate_json(record.value or b"", extra="ignore"))
        elif self._shows_texts and isinstance(decoded := decode_record(record), Decoded):
            self.state.read(decoded.message)

    def _picture(self) -> Picture:
        return picture_of(self.state, self._now(), source=self._source, lag=self.lag)
