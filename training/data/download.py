"""The stage `download`: English GoEmotions from the Hub or from local files, as rows, with a card of what came."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.config import ConfigError, EnglishConfig, Places
from training.data.rows import Row, label_support, write_rows
from training.data.sources import english_rows, read_english
from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.model_bundle import file_digest

ENGLISH = "goemotions_en"
SPLITS = ("train", "validation", "test")
CARD_NAME = "corpus_card.json"


def download(config: EnglishConfig, places: Places, *, output: Path) -> dict[str, Any]:
    """Write train, validation and test as JSONL; return the card, which says where they came from and what they hold."""
    splits, origin = _from_hub(config, places) if config.hub else _from_files(config, places)
    card: dict[str, Any] = {"origin": origin, "splits": {}}
    for split, rows in splits.items():
        path = output / f"{split}.jsonl"
        write_rows(path, rows)
        card["splits"][split] = {"rows": len(rows), "support": label_support(rows), "sha256": file_digest(path)}
    (output / CARD_NAME).write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return card


def _from_files(config: EnglishConfig, places: Places) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    paths = {split: Path(places.resolve(getattr(config, split))) for split in SPLITS}
    rows = {split: read_english(path, source=ENGLISH) for split, path in paths.items()}
    return rows, {"files": {split: {"name": path.name, "sha256": file_digest(path)} for split, path in paths.items()}}


def _from_hub(config: EnglishConfig, places: Places) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    from datasets import DatasetDict, load_dataset
    from datasets.exceptions import DatasetsError

    name = places.resolve(config.hub or "")
    try:
        found: DatasetDict = load_dataset(name, config.subset, revision=config.revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise ConfigError(
            f"can't load data.english.hub {name!r}, subset {config.subset!r}, revision {config.revision!r}: go online, or give "
            f"local files as data.english.train, validation and test instead of hub ({error})"
        ) from error
    missing = [split for split in SPLITS if split not in found]
    if missing:
        raise ConfigError(f"{name} has no {', '.join(missing)}; name another data.english.subset, or give local files")
    for split in SPLITS:
        _check_columns(found[split].features, where=f"{name}, {split}")
    origin = {
        "hub": config.hub,
        "subset": config.subset,
        "revision": config.revision,
        "fingerprints": {split: found[split]._fingerprint for split in SPLITS},
    }
    return {split: english_rows(found[split], source=ENGLISH, where=f"{name}, {split}") for split in SPLITS}, origin


def _check_columns(features: Any, *, where: str) -> None:
    """Refuse a data set whose label ids mean something else: where it names its labels, they must be GoEmotions' in order."""
    missing = {"text", "labels", "id"} - set(features)
    if missing:
        raise ConfigError(f"{where} lacks the columns {', '.join(sorted(missing))}; name another data.english.subset")
    names: Sequence[str] | None = getattr(getattr(features["labels"], "feature", None), "names", None)
    if names is not None and tuple(names) != GOEMOTIONS_LABELS:
        raise ConfigError(f"{where} orders its labels otherwise than GoEmotions; take google-research-datasets/go_emotions")
