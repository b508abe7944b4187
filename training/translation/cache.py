"""Translations kept on disk, so that a text is translated once by a model, across stopped and later runs."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from training.config import TranslationConfig, digest_of

METHOD = 1
"""Raise it when texts are cut, masked or put together otherwise: earlier translations then no longer hold."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A translated text as it came, good or not.

    `problem` is why it isn't all there; `in_pieces` says that its placeholders did not survive, so that what stands
    between them was translated apart.
    """

    text: str
    problem: str | None = None
    in_pieces: bool = False


class TranslationCache:
    """The translations by one model under one set of generation settings: JSONL files, one a chunk, each written whole.

    Neither batch size nor precision is part of the key: they hardly change a translation.
    """

    def __init__(self, folder: Path, *, revision: str, config: TranslationConfig) -> None:
        settings = {"revision": revision, "beams": config.beams, "max_tokens": config.max_tokens, "method": METHOD}
        self._folder = folder / digest_of(settings)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "settings.json").write_text(json.dumps({"model": config.model, **settings}, indent=1) + "\n", "utf-8")
        self._known: dict[str, Translation] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in path.read_text("utf-8").split("\n")[:-1]:
                value = json.loads(line)
                source = value.pop("source")
                self._known[source] = Translation(**value)

    def __contains__(self, source: str) -> bool:
        return source in self._known

    def __getitem__(self, source: str) -> Translation:
        return self._known[source]

    def add(self, chunk: Mapping[str, Translation]) -> None:
        """Keep a chunk of translations by source text: all of them or, if stopped while writing, none."""
        path = self._folder / f"{digest_of(list(chunk))}.jsonl"
        lines = [json.dumps({"source": source, **asdict(each)}, ensure_ascii=False) + "\n" for source, each in chunk.items()]
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text("".join(lines), "utf-8")
        unfinished.replace(path)
        self._known |= chunk
