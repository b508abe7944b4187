"""How an exported graph compares with torch, and whether a text's logits depend on the texts beside it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from training.evaluation.metrics import macro_f1
from worker.core.micro_batch import plan_micro_batches
from worker.core.scoring import probabilities_from_logits

TokenIds = Sequence[Sequence[int]]
_BATCH = 64
_SPEED_TEXTS = 512
_SPEED_ALONE = 128
_SPEED_ROUNDS = 6
_POLL = 256
_MAX_PADDED_TOKENS, _MAX_TEXTS = 1024, 32  # the worker's defaults


@dataclass(frozen=True, slots=True)
class Parity:
    """An exported graph beside torch on the same rows.

    - `cell_agreement`, `row_agreement`: shares of single labels, and of whole rows, decided as torch decides them.
    - `macro_f1_difference`: exported minus torch.
    - `batch_dependence`: largest change of a probability when a text goes alone or among others, and
      `batch_flips`: labels decided otherwise because of that.
    """

    megabytes: float
    cell_agreement: float
    row_agreement: float
    macro_f1_difference: float
    batch_dependence: float
    batch_flips: int

    def rounded(self) -> dict[str, float]:
        """Return the figures as they are published."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Speeds:
    """Messages a second of one graph: in polls of 256, planned into micro-batches as the worker does, and one by one."""

    polls: float
    alone: float


@dataclass(frozen=True, slots=True)
class ParityRows:
    """Rows to compare on: tokens, multi-hot labels [rows, 28], torch's logits [rows, 28], thresholds [28], pad id."""

    token_ids: TokenIds
    labels: npt.NDArray[np.float32]
    torch_logits: npt.NDArray[np.float32]
    thresholds: npt.NDArray[np.float64]
    pad_id: int


def compare_with_torch(path: Path, rows: ParityRows, *, threads: int, seed: int, dependence_rows: int = 256) -> Parity:
    """Measure an exported graph on rows whose torch logits are known."""
    session = open_session(path, threads=threads)
    probabilities = probabilities_from_logits(_in_batches(session, rows.token_ids, rows.pad_id))
    decided = probabilities >= rows.thresholds
    by_torch = probabilities_from_logits(rows.torch_logits) >= rows.thresholds
    same = decided == by_torch
    some = [rows.token_ids[index] for index in range(min(dependence_rows, len(rows.token_ids)))]
    compositions = _compositions(session, some, rows.pad_id, seed=seed)
    alone = compositions[0]
    return Parity(
        megabytes=path.stat().st_size / 1e6,
        cell_agreement=float(same.mean()),
        row_agreement=float(same.all(1).mean()),
        macro_f1_difference=macro_f1(rows.labels, decided) - macro_f1(rows.labels, by_torch),
        batch_dependence=max(float(np.abs(other - alone).max()) for other in compositions[1:]),
        batch_flips=max(int(((other >= rows.thresholds) != (alone >= rows.thresholds)).sum()) for other in compositions[1:]),
    )


def logit_difference(path: Path, rows: ParityRows) -> float:
    """Return the largest difference between a graph's logits and torch's, as a share of torch's largest logit."""
    logits = _in_batches(open_session(path, threads=1), rows.token_ids, rows.pad_id)
    return float(np.abs(logits - rows.torch_logits).max() / np.abs(rows.torch_logits).max())


def measure_speeds(paths: dict[str, Path], rows: ParityRows, *, threads: int) -> dict[str, Speeds]:
    """Measure several graphs in turns on texts of the rows' lengths: of each the best of some rounds.

    Turns, and the best of them, because other work on the machine comes and goes, and only ever slows.
    """
    drawn = np.random.default_rng(0).permutation(len(rows.token_ids))[:_SPEED_TEXTS]
    texts = [rows.token_ids[row] for row in drawn]
    polls = [feeds for start in range(0, len(texts), _POLL) for feeds in _planned(texts[start : start + _POLL], rows.pad_id)]
    alone = [feeds_of([ids], pad_id=rows.pad_id) for ids in texts[:_SPEED_ALONE]]
    sessions = {name: open_session(path, threads=threads) for name, path in paths.items()}
    best = dict.fromkeys(paths, Speeds(0.0, 0.0))
    for _ in range(_SPEED_ROUNDS):
        for name, session in sessions.items():
            best[name] = Speeds(max(best[name].polls, _rate(session, polls)), max(best[name].alone, _rate(session, alone)))
    return best


def _planned(token_ids: TokenIds, pad_id: int) -> list[dict[str, npt.NDArray[np.int64]]]:
    counts = [len(ids) for ids in token_ids]
    plan = plan_micro_batches(counts, max_padded_tokens=_MAX_PADDED_TOKENS, max_texts=_MAX_TEXTS)
    return [feeds_of([token_ids[index] for index in micro_batch], pad_id=pad_id) for micro_batch in plan]


def _rate(session: ort.InferenceSession, batches: Sequence[dict[str, npt.NDArray[np.int64]]]) -> float:
    started_s = time.perf_counter()
    for feeds in batches:
        session.run(["logits"], feeds)
    return sum(len(feeds["input_ids"]) for feeds in batches) / (time.perf_counter() - started_s)


def open_session(path: Path, *, threads: int) -> ort.InferenceSession:
    """Open a graph on the CPU, its threads not spinning while idle, as the worker does."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds_of(token_ids: TokenIds, *, pad_id: int) -> dict[str, npt.NDArray[np.int64]]:
    """Return a padded batch as the graph takes it."""
    longest = max(len(ids) for ids in token_ids)
    input_ids = np.full((len(token_ids), longest), pad_id, np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def _in_batches(
    session: ort.InferenceSession, token_ids: TokenIds, pad_id: int, *, order: Iterable[int] | None = None, batch: int = _BATCH
) -> npt.NDArray[np.float32]:
    """Return logits in the texts' own order, computed in batches that follow `order` (by token count if not given)."""
    rows = list(order) if order is not None else sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))
    logits = np.empty((len(token_ids), 28), np.float32)
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        (logits[chosen],) = session.run(["logits"], feeds_of([token_ids[row] for row in chosen], pad_id=pad_id))
    return logits


def _compositions(
    session: ort.InferenceSession, token_ids: TokenIds, pad_id: int, *, seed: int
) -> list[npt.NDArray[np.float64]]:
    """Return probabilities of the same texts alone, then sorted by token count, shuffled, and beside the longest text."""
    chance = np.random.default_rng(seed)
    longest = max(token_ids, key=len)
    everyone = range(len(token_ids))
    alone = _in_batches(session, token_ids, pad_id, order=everyone, batch=1)
    by_count = _in_batches(session, token_ids, pad_id)
    shuffled = _in_batches(session, token_ids, pad_id, order=chance.permutation(len(token_ids)).tolist(), batch=32)
    paired = [[*ids] for each in token_ids for ids in (each, longest)]
    beside = _in_batches(session, paired, pad_id, order=range(len(paired)), batch=2)[::2]
    return [probabilities_from_logits(each) for each in (alone, by_count, shuffled, beside)]
