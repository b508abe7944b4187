"""Searches the escalation policy's numbers on whole chats: `python -m training.policy.search CHATS.jsonl`.

Chats are read as `training.data.chats` describes them; their messages are taken to be a minute apart.
Prints how the present default policy does, and the best of a grid: most chats found among those that should escalate, with at
most the allowed share of false alarms; of equals the one whose neighbours on the grid do as well, for an edge does not last.
"""

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from training.config import ConfigError
from training.data.chats import read_whole_chats
from training.evaluation.escalations import DEFAULT_POLICY, Chat, ChatScores, read_policy, score_chats
from training.score import ask_model, open_inference
from worker.core.escalation import EscalationPolicy
from worker.core.failures import WorkerError
from worker.inference.model_bundle import DEFAULT_BUNDLE, ModelBundle, load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier

# Calibrated negativity rises slowly above a half, since few labels are ever certain: a hostile message may be no more than
# 0.5, a displeased one 0.25, and the sum of a few such is small.
_SEVERE = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_SCORE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
_COUNTED = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55)

Cell = tuple[int, int, int]


def score_policy(chats: Iterable[Chat], policy: EscalationPolicy, bundle: ModelBundle) -> ChatScores:
    """Return how a policy does on chats."""
    return score_chats(chats, policy, bundle.scorer(policy.weights))


def read_chats(path: Path, bundle: ModelBundle) -> list[Chat]:
    """Read chats and ask the bundle's model about every message."""
    whole = read_whole_chats(path)
    with open_inference(OnnxClassifier(bundle)) as inference:
        logits = ask_model(inference, [text for chat in whole for text in chat.texts], name=path.stem)
        return [
            Chat(chat.chat_id, chat.escalates, chat.authors, tuple(itertools.islice(logits, len(chat.texts)))) for chat in whole
        ]


def search_policy(
    chats: list[Chat], base: EscalationPolicy, bundle: ModelBundle, *, max_false_alarms: float
) -> EscalationPolicy:
    """Return the base with the grid's best numbers; those that the grid does not vary stay."""
    grid = list(itertools.product(range(len(_SEVERE)), range(len(_SCORE)), range(len(_COUNTED))))
    cells = {cell: score_policy(chats, _candidate(base, cell), bundle) for cell in tqdm(grid, desc="policies")}

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
    policy: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="the policy to begin from")] = DEFAULT_POLICY,
    max_false_alarms: Annotated[float, typer.Option(help="largest share of calm chats that may escalate")] = 0.02,
    search: Annotated[bool, typer.Option(help="also search the grid; leave it out on chats that only report")] = False,
) -> None:
    """Score the policy on chats, and with --search choose better numbers."""
    bundle = load_model_bundle(model)
    read = read_chats(chats, bundle)
    present = read_policy(policy)
    typer.echo(f"{len(read)} chats, {sum(chat.escalates for chat in read)} should escalate")
    typer.echo(f"{policy.name}: {_in_words(score_policy(read, present, bundle))}")
    if search:
        best = search_policy(read, present, bundle, max_false_alarms=max_false_alarms)
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
    try:
        typer.run(main)
    except (ConfigError, WorkerError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
