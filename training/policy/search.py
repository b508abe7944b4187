"""Searches the escalation policy's numbers on whole chats: `python -m training.policy.search CHATS.jsonl`.

A chat is a line {"chat_id", "escalates", "messages": [{"author", "text"}, ...]}; its messages are taken to be a minute apart.
Prints how the present default policy does, and the best of a grid: most chats found among those that should escalate, with at
most the allowed share of false alarms; of equals the one whose neighbours on the grid do as well, for an edge does not last.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from worker.core.escalation import ChatState, EscalationPolicy, JudgedMessage, judge_message, parse_escalation_policy
from worker.core.scoring import Scorer
from worker.inference.executor import InferenceExecutor, TextLogits
from worker.inference.model_bundle import DEFAULT_BUNDLE, ModelBundle, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier

DEFAULT_POLICY = Path(__file__).parents[2] / "worker" / "escalation_policy.toml"
_SECONDS_APART = 60.0
_SEVERE = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_SCORE = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
_COUNTED = (0.35, 0.4, 0.45, 0.5, 0.55)

Cell = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat with the logits of its messages."""

    chat_id: str
    escalates: bool
    authors: tuple[str, ...]
    logits: tuple[np.ndarray[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class ChatScores:
    """Shares of chats: found among those that should escalate, false alarms among the others; and which were wrong."""

    found: float
    false_alarms: float
    missed: tuple[str, ...]
    alarmed: tuple[str, ...]


def score_policy(chats: Iterable[Chat], policy: EscalationPolicy, bundle: ModelBundle) -> ChatScores:
    """Return how a policy does on chats."""
    scorer = bundle.scorer(policy.weights)
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


def read_chats(path: Path, bundle: ModelBundle) -> list[Chat]:
    """Read chats and ask the bundle's model about every message."""
    parsed = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    inference = InferenceExecutor(OnnxClassifier(bundle), max_padded_tokens=2048, max_texts=64)
    answers = iter(inference.classify_texts([each["text"] for chat in parsed for each in chat["messages"]]))
    return [
        Chat(
            chat_id=chat["chat_id"],
            escalates=chat["escalates"],
            authors=tuple(each["author"] for each in chat["messages"]),
            logits=tuple(
                answer.logits for answer in itertools.islice(answers, len(chat["messages"])) if isinstance(answer, TextLogits)
            ),
        )
        for chat in parsed
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
            emotions=score.emotions,
            negativity=score.negativity,
        )


def _search(chats: list[Chat], base: EscalationPolicy, bundle: ModelBundle, *, max_false_alarms: float) -> EscalationPolicy:
    cells = {
        cell: score_policy(chats, _candidate(base, cell), bundle)
        for cell in itertools.product(range(len(_SEVERE)), range(len(_SCORE)), range(len(_COUNTED)))
    }

    def merit(cell: Cell) -> float:
        scores = cells[cell]
        return scores.found if scores.false_alarms <= max_false_alarms else -scores.false_alarms

    def neighbourhood(cell: Cell) -> float:
        around = [merit(near) for near in itertools.product(*(range(at - 1, at + 2) for at in cell)) if near in cells]
        return sum(around) / len(around)

    return _candidate(base, max(cells, key=lambda cell: (merit(cell), neighbourhood(cell))))


def _candidate(base: EscalationPolicy, cell: Cell) -> EscalationPolicy:
    severe, score, counted = cell
    return base.model_copy(
        update={
            "severe_message": base.severe_message.model_copy(update={"min_negativity": _SEVERE[severe]}),
            "sustained": base.sustained.model_copy(update={"min_score": _SCORE[score], "min_negativity": _COUNTED[counted]}),
        }
    )


def main(
    chats: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="chats, one JSON object a line")],
    model: Annotated[Path, typer.Option(help="the bundle's folder")] = DEFAULT_BUNDLE,
    policy: Annotated[Path, typer.Option(help="the policy to begin from")] = DEFAULT_POLICY,
    max_false_alarms: Annotated[float, typer.Option(help="largest share of calm chats that may escalate")] = 0.02,
    search: Annotated[bool, typer.Option(help="also search the grid; leave it out on chats that only report")] = False,
) -> None:
    """Score the policy on chats, and with --search choose better numbers."""
    bundle = load_model_bundle(model)
    read = read_chats(chats, bundle)
    present = parse_escalation_policy(policy.read_text("utf-8"), source=str(policy))
    typer.echo(f"{len(read)} chats, {sum(chat.escalates for chat in read)} should escalate")
    typer.echo(f"{policy.name}: {_in_words(score_policy(read, present, bundle))}")
    if search:
        best = _search(read, present, bundle, max_false_alarms=max_false_alarms)
        typer.echo(f"best of the grid: {_in_words(score_policy(read, best, bundle))}")
        typer.echo(
            f"  severe_message.min_negativity = {best.severe_message.min_negativity}, "
            f"sustained.min_score = {best.sustained.min_score}, sustained.min_negativity = {best.sustained.min_negativity}"
        )


def _in_words(scores: ChatScores) -> str:
    return (
        f"found {scores.found:.1%}, false alarms {scores.false_alarms:.1%}; "
        f"missed {', '.join(scores.missed) or 'none'}; alarmed {', '.join(scores.alarmed) or 'none'}"
    )


if __name__ == "__main__":
    typer.run(main)
