"""Labels texts without Kafka: what `python -m worker classify` does."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from worker.core.labels import tone_of
from worker.core.scoring import Score, Scorer
from worker.inference.executor import InferenceExecutor, TextLogits

_FIRST_CHUNK, _LARGEST_CHUNK = 256, 2048  # texts; it doubles, so that first answers come soon
_LINES_PER_UPDATE = 256
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text with its score; `score` is None when the text is blank or the model fails on it."""

    text: str
    score: Score | None

    @property
    def tone(self) -> str:
        return tone_of(each.label for each in self.score.emotions) if self.score else "neutral"

    @property
    def negativity(self) -> float:
        return self.score.negativity if self.score else 0.0

    def as_json(self) -> str:
        """Return one JSON object without line breaks: text, tone, negativity, emotions."""
        emotions: list[dict[str, Any]] = [
            {"label": each.label, "probability": each.probability, "threshold": each.threshold}
            for each in (self.score.emotions if self.score else ())
        ]
        return _encode({"text": self.text, "tone": self.tone, "negativity": self.negativity, "emotions": emotions})

    def as_line(self) -> str:
        """Return a line for people: tone, negativity, emotions, text."""
        emotions = " ".join(f"{each.label}:{each.probability:.2f}" for each in (self.score.emotions if self.score else ()))
        return f"{self.tone:<9}  {self.negativity:>4.2f}  {emotions or '-':<44}  {self.text}"


LINE_HEADING = f"{'tone':<9}  {'neg':>4}  {'emotions':<44}  text"


def classify_lines(texts: Iterable[str], *, inference: InferenceExecutor, scorer: Scorer) -> Iterator[LabelledText]:
    """Label texts in order, a chunk at a time, so that a stream of any length takes bounded memory.

    The model works on a chunk while the one before is written and the one after is read. White space around a text is ignored,
    as the worker ignores it. A blank text is neutral without asking the model.
    """
    remaining, size = iter(texts), _FIRST_CHUNK
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunk") as ahead:
        before: Future[list[LabelledText]] | None = None
        while chunk := list(islice(remaining, size)):
            size = min(2 * size, _LARGEST_CHUNK)
            labelled = ahead.submit(_label, chunk, inference, scorer)
            if before is not None:
                yield from before.result()
            before = labelled
        if before is not None:
            yield from before.result()


def _label(chunk: list[str], inference: InferenceExecutor, scorer: Scorer) -> list[LabelledText]:
    trimmed = [text.strip() for text in chunk]
    classified = inference.classify_texts([text for text in trimmed if text])
    scores = iter(scorer.score_all([each.logits for each in classified if isinstance(each, TextLogits)]))
    found = iter([next(scores) if isinstance(each, TextLogits) else None for each in classified])
    return [LabelledText(text, next(found) if asked else None) for text, asked in zip(chunk, trimmed, strict=True)]


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """Yield a stream's lines without their ends; bytes that are not UTF-8 are replaced.

    Shows progress on standard error when that is a terminal and the stream isn't: by bytes for a file, else by lines.
    """
    is_shown = sys.stderr.isatty() and not stream.isatty()
    total_bytes = os.fstat(stream.fileno()).st_size or None
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.fields[lines]:,} lines"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as progress:
        task = progress.add_task("classify", total=total_bytes, lines=0)
        count = read_bytes = 0
        for count, raw in enumerate(stream, start=1):
            yield raw.decode("utf-8", "replace").rstrip("\r\n")
            read_bytes += len(raw)
            if is_shown and count % _LINES_PER_UPDATE == 0:
                progress.update(task, completed=read_bytes, lines=count)
        progress.update(task, completed=read_bytes, lines=count)
