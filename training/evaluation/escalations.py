"""The escalation policy on whole chats: which are found, which are alarmed about, from logits by the worker's own rules."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.config import ConfigError
from training.evaluation.predictions import CHATS_PREFIX
from worker.core.escalation import ChatState, EscalationPolicy, JudgedMessage, judge_message, parse_escalation_policy
from worker.core.failures import ConfigurationError
from worker.core.scoring import Scorer

DEFAULT_POLICY = Path(__file__).parents[2] / "worker" / "escalation_policy.toml"
_SECONDS_APART = 60.0


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat with the logits of its messages, which are taken to be a minute apart."""

    chat_id: str
    escalates: bool
    authors: tuple[str, ...]
    logits: tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class ChatScores:
    """Shares of chats: found among those that should escalate, false alarms among the others; and which were wrong."""

    found: float
    false_alarms: float
    missed: tuple[str, ...]
    alarmed: tuple[str, ...]


def score_chats(chats: Iterable[Chat], policy: EscalationPolicy, scorer: Scorer) -> ChatScores:
    """Return how a policy does on chats; the scorer weighs emotions by the same policy."""
    verdicts = [(chat, _does_escalate(chat, policy, scorer)) for chat in chats]
    missed = tuple(chat.chat_id for chat, verdict in verdicts if chat.escalates and not verdict)
    alarmed = tuple(chat.chat_id for chat, verdict in verdicts if verdict and not chat.escalates)
    hostile = sum(chat.escalates for chat, _ in verdicts)
    return ChatScores(
        found=1 - len(missed) / max(1, hostile),
        false_alarms=len(alarmed) / max(1, len(verdicts) - hostile),
        missed=missed,
        alarmed=alarmed,
    )


def escalation_scores(predicted: Path, policy: EscalationPolicy, scorer: Scorer) -> dict[str, dict[str, Any]]:
    """Return figures of every file of chats that `predict` saved, by its name."""
    scores = {}
    for path in sorted(predicted.glob(f"{CHATS_PREFIX}*.npz")):
        chats = _read_saved(path)
        scored = score_chats(chats, policy, scorer)
        scores[path.stem.removeprefix(CHATS_PREFIX)] = {
            "chats": len(chats),
            "should_escalate": sum(chat.escalates for chat in chats),
            "found": round(scored.found, 4),
            "false_alarms": round(scored.false_alarms, 4),
            "missed": list(scored.missed),
            "alarmed": list(scored.alarmed),
        }
    return scores


def read_policy(path: Path) -> EscalationPolicy:
    """Read an escalation policy; raises `ConfigError`."""
    try:
        return parse_escalation_policy(path.read_text("utf-8"), source=str(path))
    except OSError as error:
        raise ConfigError(f"can't read {path} ({error.strerror}); mend evaluation.policy in the configuration") from error
    except ConfigurationError as error:
        raise ConfigError(str(error)) from error


def _read_saved(path: Path) -> list[Chat]:
    with np.load(path, allow_pickle=False) as saved:
        logits, chat_of, authors = saved["logits"], saved["chat"], saved["author"]
        chat_ids, escalates = saved["chat_id"].tolist(), saved["escalates"].tolist()
    rows = [np.flatnonzero(chat_of == number) for number in range(len(chat_ids))]
    return [
        Chat(chat_id, should, tuple(authors[found].tolist()), tuple(logits[found]))
        for chat_id, should, found in zip(chat_ids, escalates, rows, strict=True)
    ]


def _does_escalate(chat: Chat, policy: EscalationPolicy, scorer: Scorer) -> bool:
    state, decision = ChatState(), None
    for message in _judged(chat, scorer):
        state, decision = judge_message(policy, state, message)
        if decision is not None:
            return True
    return False


def _judged(chat: Chat, scorer: Scorer) -> Iterator[JudgedMessage]:
    for number, (author, logits) in enumerate(zip(chat.authors, chat.logits, strict=True)):
        sent_at_s = number * _SECONDS_APART
        score = scorer.score(logits)
        yield JudgedMessage(
            message_id=str(number),
            author=author,  # type: ignore[arg-type]
            operator_id=None,
            sent_at=datetime.fromtimestamp(sent_at_s, tz=UTC),
            sent_at_s=sent_at_s,
            recorded_at_s=sent_at_s,
            emotions=score.emotions,
            negativity=score.negativity,
        )
