"""Scores a finished bundle on a data directory, by the worker's own classifier, and holds it against its manifest's figures."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.config import ConfigError
from training.evaluation.predictions import save_predictions
from training.evaluation.scores import Deciding, score_run
from training.evaluation.tables import (
    calibration_table,
    calibration_words,
    corpora_table,
    escalation_table,
    label_table,
    noise_table,
    split_table,
    strength_line,
    table,
    tone_table,
    union_line,
)
from worker.core.escalation import EscalationPolicy
from worker.core.failures import ModelBundleError
from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.executor import InferenceExecutor, PoisonText
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier

# Of macro-F1: the manifest's figures are of the model in float32, the graph is int8, and other machines sum in another order.
MAX_DIFFERENCE = 0.005
_CHUNK_TEXTS = 256


@dataclass(frozen=True, slots=True)
class BundleScores:
    """The tables in Markdown, and the parts whose macro-F1 is not the manifest's."""

    tables: str
    differing: tuple[str, ...]


def score_bundle(
    folder: Path, *, prepared: Path, chats: Sequence[Path], policy: EscalationPolicy, threads: int, seed: int
) -> BundleScores:
    """Run a bundle's graph over every prepared split but train and score it by the shipped thresholds and calibration.

    Raises `ConfigError` where the folder holds no whole bundle of this project's.
    """
    try:
        bundle = load_model_bundle(folder)
        classifier = OnnxClassifier(bundle, threads=threads)
    except ModelBundleError as error:
        raise ConfigError(str(error)) from error
    if bundle.manifest.labels != GOEMOTIONS_LABELS:
        raise ConfigError(f"{folder} orders its labels otherwise than the data; score a bundle that this project made")
    deciding = Deciding(thresholds=np.array(bundle.thresholds), calibration=bundle.calibration, policy=policy)
    with open_inference(classifier) as inference, TemporaryDirectory(prefix="rugo-score-") as place:

        def logits_of(texts: Sequence[str], name: str) -> npt.NDArray[np.float32]:
            return np.stack(list(ask_model(inference, texts, name=name)))

        save_predictions(logits_of, prepared=prepared, chats=chats, output=Path(place))
        scores = score_run(Path(place), deciding, seed=seed)
    compared = list(_compare(scores, bundle.manifest.metrics))
    return BundleScores(
        tables=_render(scores, compared, is_calibrated=bundle.calibration is not None),
        differing=tuple(part for part, now, then in compared if abs(now - then) > MAX_DIFFERENCE),
    )


def open_inference(classifier: OnnxClassifier) -> closing[InferenceExecutor]:
    """Return the worker's executor with batches as large as a pass over many texts wants; closed at the block's end."""
    return closing(InferenceExecutor(classifier, max_padded_tokens=2048, max_texts=64))


def ask_model(inference: InferenceExecutor, texts: Sequence[str], *, name: str) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the logits of every text, in order, with a progress bar of that name.

    Raises `ConfigError` at a text on which the model fails.
    """
    with tqdm(total=len(texts), desc=name) as progress:
        for start in range(0, len(texts), _CHUNK_TEXTS):
            chunk = texts[start : start + _CHUNK_TEXTS]
            for answer in inference.classify_texts(chunk):
                if isinstance(answer, PoisonText):
                    raise ConfigError(f"the bundle's model fails on a text of {name} ({answer.error}); export it again")
                yield answer.logits
            progress.update(len(chunk))


def _compare(scores: dict[str, Any], shipped: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield part, macro-F1 now and macro-F1 in the manifest, of every part that both have."""
    for split in ("validation", "test"):
        if split in shipped:
            yield split, scores[split]["tuned"]["macro_f1"], shipped[split]["tuned"]["macro_f1"]
    for part, each in scores["corpora"].items():
        if part in shipped.get("corpora", {}):
            yield part, each["macro_f1"], shipped["corpora"][part]["macro_f1"]


def _render(scores: dict[str, Any], compared: Sequence[tuple[str, float, float]], *, is_calibrated: bool) -> str:
    verdicts = [
        (part, f"{now:.4f}", f"{then:.4f}", "the same" if abs(now - then) <= MAX_DIFFERENCE else "**differs**")
        for part, now, then in compared
    ]
    parts = [
        split_table(scores),
        union_line(scores),
        corpora_table(scores["corpora"]),
        tone_table(scores["tones"]),
        noise_table(scores["noise"]),
        escalation_table(scores["escalations"]),
        calibration_words(is_calibrated=is_calibrated),
        calibration_table(scores),
        strength_line(scores["test_by_label"]),
        label_table(scores["test_by_label"], scores["test_averages"]),
        table(("macro-F1 of", "now", "in the manifest", f"within {MAX_DIFFERENCE}"), verdicts),
    ]
    return "\n\n".join(part for part in parts if part)
