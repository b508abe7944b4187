"""What the board knows of chats and escalations: from events to a bounded picture. Pure: time arrives as `now_s`.

Events may come late, twice, or from the two topics in either order: the picture is the same.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from worker.board.course import Course, Ending, Message, Raised, Step, Takeover, course_after, course_at, course_of
from worker.board.rates import Rates
from worker.contracts.inbound import ChatMessage
from worker.contracts.outbound import EmotionEvent, EscalationEvent

POINTS_A_CHAT = 24
TEXTS_A_CHAT = 3
TEXT_CHARS = 280
_ESCALATIONS_A_CHAT = 8
_TAKEOVERS_A_CHAT = 6
_MAX_ESCALATIONS = 500
_MAX_EVENT_IDS = 50_000

Outcome = Literal["waiting"] | Ending


@dataclass(frozen=True, slots=True)
class Point:
    """One client message on a chat's line of tone."""

    at_s: float
    negativity: float
    tone: str


@dataclass(slots=True)
class Escalation:
    """An escalation and what became of it: `waiting` until another operator takes over or the client's tone settles."""

    event_id: str
    chat_id: str
    operator_id: str | None
    at_s: float
    reason: str
    severity: float
    emotions: tuple[str, ...]
    outcome: Outcome = "waiting"
    settled_s: float | None = None
    taken_by: str | None = None


@dataclass(slots=True)
class Chat:
    """What is remembered of one chat. `version` grows with every change."""

    chat_id: str
    takeovers: list[Takeover] = field(default_factory=list)  # oldest first
    last_s: float = 0.0
    emotions: tuple[str, ...] = ()
    course: Course = field(default_factory=Course)
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS_A_CHAT))
    escalations: list[Escalation] = field(default_factory=list)
    texts: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=TEXTS_A_CHAT))
    version: int = 0
    rank: float = float("-inf")  # of its course
    sought: str = ""  # what a search is compared with

    @property
    def operator_id(self) -> str | None:
        """Who serves the chat, as far as its messages told."""
        return self.takeovers[-1].operator_id if self.takeovers else None

    def trouble_since_s(self, now_s: float) -> float | None:
        """Return since when the chat is in trouble, or None when it isn't."""
        return course_at(self.course, now_s).trouble_since_s

    def waiting_escalation(self) -> Escalation | None:
        """Return the newest escalation that nobody has answered yet."""
        return next((each for each in reversed(self.escalations) if each.outcome == "waiting"), None)


class BoardState:
    """Takes in events, keeps what the page shows.

    - Repeats, by `event_id`, change nothing.
    - Beyond `max_chats` the chats that were silent longest are forgotten; escalations, points and texts are bounded too.
    - Time is the message's `sent_at`, or when it was labelled if that is earlier.
    """

    def __init__(self, *, max_chats: int = 20_000) -> None:
        self.rates = Rates()
        self.version = 0
        self._max_chats = max_chats
        self._chats: dict[str, Chat] = {}
        self._escalations: list[Escalation] = []
        self._event_ids: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._chats)

    @property
    def chats(self) -> Iterator[Chat]:
        return iter(self._chats.values())

    def hear(self, event: EmotionEvent, *, now_s: float) -> None:
        """Take in a message's emotions."""
        if not self._is_new(event.event_id):
            return
        sent_s, labelled_s = event.sent_at.timestamp(), event.classified_at.timestamp()
        is_client = event.author == "client"
        self.rates.count(event.tone if is_client else None, labelled_s=labelled_s, latency_s=labelled_s - sent_s, now_s=now_s)
        chat, at_s = self._chat(event.chat_id), min(sent_s, labelled_s)
        _note_operator(chat, event.operator_id, at_s)
        if is_client:
            if not chat.points or at_s >= chat.points[-1].at_s:
                chat.emotions = tuple(each.label for each in event.emotions)
            chat.points.append(Point(at_s, event.negativity, event.tone))
            _follow(chat, Message(at_s, event.negativity))
        chat.last_s = max(chat.last_s, at_s)

    def escalate(self, event: EscalationEvent) -> None:
        """Take in an escalation."""
        if not self._is_new(event.event_id):
            return
        raised_s = event.raised_at.timestamp()
        latest = max(event.evidence, key=lambda each: each.sent_at, default=None)
        at_s = min(raised_s, latest.sent_at.timestamp()) if latest else raised_s
        emotions = tuple(each.label for each in latest.emotions) if latest else ()
        escalation = Escalation(event.event_id, event.chat_id, event.operator_id, at_s, event.reason, event.severity, emotions)
        chat = self._chat(event.chat_id)
        _note_operator(chat, event.operator_id, at_s)
        if len(chat.escalations) == _ESCALATIONS_A_CHAT:
            self._escalations.remove(chat.escalations.pop(0))
        chat.escalations.append(escalation)
        chat.last_s = max(chat.last_s, at_s)
        self._escalations.append(escalation)
        if len(self._escalations) > _MAX_ESCALATIONS:
            oldest = self._escalations.pop(0)
            if (its_chat := self._chats.get(oldest.chat_id)) is not None and oldest in its_chat.escalations:
                its_chat.escalations.remove(oldest)
        _follow(chat, Raised(at_s, event.severity))

    def read(self, message: ChatMessage) -> None:
        """Take in a message's text; called only where texts are to be shown."""
        chat = self._chat(message.chat_id)
        text = message.text if len(message.text) <= TEXT_CHARS else message.text[: TEXT_CHARS - 1] + "…"
        chat.texts.append((message.author, text))

    def settle(self, now_s: float) -> None:
        """Note which escalations silence has settled by now."""
        for each in self._escalations:
            chat = self._chats.get(each.chat_id)
            if each.outcome == "waiting" and chat is not None and chat.trouble_since_s(now_s) is None:
                chat.course = course_at(chat.course, now_s)
                _settle_escalations(chat)
                self._touch(chat)

    def escalations(self) -> list[Escalation]:
        """Return the escalations, newest first."""
        return sorted(self._escalations, key=lambda each: each.at_s, reverse=True)

    def ranked(self, now_s: float) -> tuple[list[Chat], int]:
        """Return every chat, those in trouble first and then by heat, and how many are in trouble."""
        troubled: list[Chat] = []
        others: list[Chat] = []
        for chat in self._chats.values():
            is_troubled = chat.course.trouble_since_s is not None and chat.trouble_since_s(now_s) is not None
            (troubled if is_troubled else others).append(chat)
        by_rank = attrgetter("rank")
        return [*sorted(troubled, key=by_rank, reverse=True), *sorted(others, key=by_rank, reverse=True)], len(troubled)

    def _is_new(self, event_id: str) -> bool:
        if event_id in self._event_ids:
            return False
        self._event_ids[event_id] = None
        if len(self._event_ids) > _MAX_EVENT_IDS:
            del self._event_ids[next(iter(self._event_ids))]
        return True

    def _chat(self, chat_id: str) -> Chat:
        chat = self._chats.pop(chat_id, None) or Chat(
            chat_id, sought=chat_id.casefold()
        )  # put last: the dict's order is the order of silence
        self._chats[chat_id] = chat
        if len(self._chats) > self._max_chats:
            self._forget(next(iter(self._chats)))
        self._touch(chat)
        return chat

    def _forget(self, chat_id: str) -> None:
        chat = self._chats.pop(chat_id)
        for each in chat.escalations:
            if each.outcome == "waiting":
                each.outcome, each.settled_s = "silent", chat.last_s

    def _touch(self, chat: Chat) -> None:
        chat.version += 1
        self.version += 1


def _note_operator(chat: Chat, named: str | None, at_s: float) -> None:
    """Note who served the chat at a moment: a takeover there, an earlier one of the same operator, or nothing new."""
    if named is None:
        return
    place = bisect_right(chat.takeovers, at_s, key=lambda each: each.at_s)
    if place and chat.takeovers[place - 1].operator_id == named:
        return
    if place < len(chat.takeovers) and chat.takeovers[place].operator_id == named:
        del chat.takeovers[place]
    takeover = Takeover(at_s, named)
    chat.takeovers.insert(place, takeover)
    del chat.takeovers[:-_TAKEOVERS_A_CHAT]
    chat.sought = f"{chat.chat_id}\n{chat.operator_id}".casefold()
    _follow(chat, takeover)


def _follow(chat: Chat, step: Step) -> None:
    """Take the chat's course on by a step that is noted already; a late one has it worked out anew."""
    if step.at_s > chat.course.at_s:
        chat.course = course_after(chat.course, step)
    else:
        messages = [Message(each.at_s, each.negativity) for each in chat.points]
        raised = [Raised(each.at_s, each.severity) for each in chat.escalations]
        chat.course = course_of([*chat.takeovers, *messages, *raised])
    chat.rank = chat.course.rank
    _settle_escalations(chat)


def _settle_escalations(chat: Chat) -> None:
    """Say of each escalation what came first: another operator, a calmer client, silence, or nothing yet."""
    oldest_s = min((each.at_s for each in chat.points), default=float("-inf"))
    for each in chat.escalations:
        ended = next((one for one in chat.course.exits if one.at_s > each.at_s), None)
        if ended is not None:
            each.outcome, each.settled_s, each.taken_by = ended.ending, ended.at_s, ended.taken_by
        elif each.at_s >= oldest_s:  # of an older one too much is forgotten to judge it anew
            each.outcome, each.settled_s, each.taken_by = "waiting", None, None
