"""The stage `prepare`: every corpus read, cleaned, split, checked for leaks, and described by a card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.config import DataConfig, Places
from training.data.clean import clean_rows, clean_text, drop_duplicates, drop_leaks
from training.data.rows import Row, write_rows
from training.data.sources import read_csv, read_jsonl, read_tsv
from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.model_bundle import file_digest

RUSSIAN, ENGLISH = "goemotions_ru", "goemotions_en"
GOEMOTIONS = (RUSSIAN, ENGLISH)
CARD_NAME = "corpus_card.json"


def prepare(config: DataConfig, places: Places, *, output: Path) -> dict[str, Any]:
    """Write train, validation, test and each corpus's tuning and reporting rows as JSONL; return the corpus card.

    Train rows never hold a text of validation, test, tuning or reporting rows, nor a reserved text. Validation and test
    keep every row, repeats included, so that scores stay comparable with published ones.
    """
    validation, validation_english = read_csv(Path(places.resolve(config.validation)), source=RUSSIAN)
    test, test_english = read_csv(Path(places.resolve(config.test)), source=RUSSIAN)
    corpora = {each.name: read_jsonl(places.resolve(each.glob), source=each.name) for each in config.corpora}
    splits = {"validation": _clean_in_place(validation), "test": _clean_in_place(test)}
    for name, by_split in corpora.items():
        for split in ("tuning", "reporting"):
            if by_split[split]:
                splits[f"{name}_{split}"] = drop_duplicates(clean_rows(by_split[split]))

    read = _goemotions_train(config, places) + [row for by_split in corpora.values() for row in by_split["train"]]
    distinct = drop_duplicates(clean_rows(read))
    unseen = [row.text for rows in splits.values() for row in rows] + validation_english + test_english
    comment_ids = {row.comment_id for row in validation + test}
    splits["train"] = drop_leaks(distinct, texts=[*unseen, *config.reserved_texts], comment_ids=comment_ids)

    for name, rows in splits.items():
        write_rows(output / f"{name}.jsonl", rows)
    dropped = {"empty_or_duplicate": len(read) - len(distinct), "leaks": len(distinct) - len(splits["train"])}
    card = _card(splits, dropped=dropped, files={name: output / f"{name}.jsonl" for name in splits})
    (output / CARD_NAME).write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return card


def _goemotions_train(config: DataConfig, places: Places) -> list[Row]:
    russian = read_tsv(Path(places.resolve(config.russian_train)), source=RUSSIAN, language="ru")
    if not config.english_fill:
        return russian
    covered = {row.comment_id for row in russian}
    english = read_tsv(Path(places.resolve(config.english_train)), source=ENGLISH, language="en")
    return russian + [row for row in english if row.comment_id not in covered]


def _clean_in_place(rows: Sequence[Row]) -> list[Row]:
    return [Row(clean_text(row.text), row.labels, row.source, row.language, row.comment_id) for row in rows]


def _card(splits: Mapping[str, Sequence[Row]], *, dropped: dict[str, int], files: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "dropped_from_train": dropped,
        "splits": {
            name: {
                "rows": len(rows),
                "by_source": dict(Counter(row.source for row in rows)),
                "by_language": dict(Counter(row.language for row in rows)),
                "support": _support(rows),
                "sha256": file_digest(files[name]),
            }
            for name, rows in splits.items()
        },
    }


def _support(rows: Sequence[Row]) -> dict[str, int]:
    counted = Counter(label for row in rows for label in row.labels)
    return {label: counted[label] for label in GOEMOTIONS_LABELS}
