"""What a viewer is sent: a window of the chats in most trouble, the newest escalations and the counters, and then only changes.

Pure. Times go out as milliseconds since the epoch; words are the page's.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from worker.board.course import heat_at
from worker.board.state import BoardState, Chat, Escalation

MAX_ROWS = 60
MAX_ESCALATIONS = 40
MAX_QUERY_CHARS = 128
_TENSE = 0.2

Level = Literal["trouble", "tense", "calm"]


@dataclass(frozen=True, slots=True)
class Source:
    """How the board's source is at the moment; `kind` is one of the reader's states."""

    kind: str
    since_s: float
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """The whole board at a moment, made once for all viewers: chats in trouble first, escalations newest first."""

    now_s: float
    chats: Sequence[Chat]
    escalations: Sequence[Escalation]
    summary: Mapping[str, Any]


def picture_of(state: BoardState, now_s: float, *, source: Source, lag: int | None) -> Picture:
    """Return the board at `now_s`."""
    state.settle(now_s)
    chats, in_trouble = state.ranked(now_s)
    escalations = state.escalations()
    rates = state.rates.at(now_s)
    summary = {
        "now": _ms(now_s),
        "source": {"kind": source.kind, "since": _ms(source.since_s), "topics": source.topics},
        "chats": len(chats),
        "trouble": in_trouble,
        "waiting": sum(each.outcome == "waiting" for each in escalations),
        "rate": round(rates.messages_per_s, 1),
        "tones": dict(rates.tones),
        "p50": _rounded(rates.latency_p50_s),
        "p95": _rounded(rates.latency_p95_s),
        "lag": lag,
    }
    return Picture(now_s, chats, escalations, summary)


@dataclass(slots=True)
class Viewer:
    """One open page: what it looks for, and what it has been sent already."""

    query: str = ""
    _rows: dict[str, Hashable] = field(default_factory=dict)
    _escalations: dict[str, Hashable] = field(default_factory=dict)

    def next_message(self, picture: Picture) -> dict[str, Any]:
        """Return what the page must be told to show this picture: counters always, the rest where it changed."""
        wanted = self.query.strip().casefold()[:MAX_QUERY_CHARS]
        chats = [each for each in picture.chats if wanted in each.sought] if wanted else picture.chats
        found = (each for each in picture.escalations if _matches(each, wanted))
        rows = [_placed(each, picture.now_s) for each in chats[:MAX_ROWS]]
        escalations = [(each.event_id, (each.outcome, each.settled_s), each) for each in islice(found, MAX_ESCALATIONS)]
        message: dict[str, Any] = {**picture.summary, "matches": len(chats)}
        self._rows = _tell_changes(message, "rows", sent=self._rows, shown=rows, view=_row)
        self._escalations = _tell_changes(message, "escalations", sent=self._escalations, shown=escalations, view=_escalation)
        return message


def _tell_changes(
    message: dict[str, Any],
    name: str,
    *,
    sent: dict[str, Hashable],
    shown: Iterable[tuple[str, Hashable, Any]],
    view: Callable[[Any], dict[str, Any]],
) -> dict[str, Hashable]:
    """Put changed entries under `name`, their order under `name_order` if that changed; return what is sent by now."""
    stamps: dict[str, Hashable] = {}
    changed = []
    for key, stamp, entry in shown:
        stamps[key] = stamp
        if sent.get(key) != stamp:
            changed.append(view(entry))
    if changed:
        message[name] = changed
    if list(stamps) != list(sent) or not sent:
        message[f"{name}_order"] = list(stamps)
    return stamps


def _matches(escalation: Escalation, wanted: str) -> bool:
    return not wanted or wanted in f"{escalation.chat_id}\n{escalation.operator_id or ''}".casefold()


def _placed(chat: Chat, now_s: float) -> tuple[str, Hashable, tuple[Chat, float | None, Level]]:
    since_s = chat.trouble_since_s(now_s)
    level: Level = "calm"
    if since_s is not None:
        level = "trouble"
    elif heat_at(chat.course, now_s) >= _TENSE:
        level = "tense"
    return chat.chat_id, (chat.version, since_s, level), (chat, since_s, level)


def _row(placed: tuple[Chat, float | None, Level]) -> dict[str, Any]:
    chat, since_s, level = placed
    waiting = chat.waiting_escalation()
    return {
        "id": chat.chat_id,
        "operator": chat.operator_id,
        "level": level,
        "since": _ms(since_s),
        "last": _ms(chat.last_s),
        "reason": waiting.reason if waiting else None,
        "emotions": chat.emotions,
        "points": [(round(each.negativity, 2), each.tone) for each in chat.points],
        "texts": list(chat.texts),
    }


def _escalation(each: Escalation) -> dict[str, Any]:
    return {
        "id": each.event_id,
        "chat": each.chat_id,
        "operator": each.operator_id,
        "at": _ms(each.at_s),
        "reason": each.reason,
        "emotions": each.emotions,
        "outcome": each.outcome,
        "settled": _ms(each.settled_s),
        "taken_by": each.taken_by,
    }


def _ms(at_s: float | None) -> int | None:
    return None if at_s is None else round(at_s * 1000)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
