"""The stage `prepare`: every corpus read, cleaned, split, checked for leaks, and described by a card."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config import DataConfig, Places
from training.data.clean import clean_rows, clean_text, drop_duplicates
from training.data.download import ENGLISH
from training.data.leaks import Unseen, sift_train
from training.data.rows import Row, label_support, read_rows, write_rows
from training.data.sources import read_csv, read_jsonl, read_tsv
from worker.inference.model_bundle import file_digest

RUSSIAN = "goemotions_ru"
GOEMOTIONS = (RUSSIAN, ENGLISH)
CARD_NAME = "corpus_card.json"


@dataclass(frozen=True, slots=True)
class Translated:
    """The folders of the stages `download` and `translate`, where GoEmotions comes from them."""

    english: Path
    russian: Path


def prepare(config: DataConfig, places: Places, *, output: Path, translated: Translated | None = None) -> dict[str, Any]:
    """Write train, validation, test and each corpus's tuning and reporting rows as JSONL; return the corpus card.

    Train rows never hold a text of validation, test, tuning or reporting rows, nor a reserved text, nor nearly. Validation
    and test keep every row, repeats included, so that scores stay comparable with published ones.
    """
    base = _read_translated(translated) if translated else _read_files(config, places)
    corpora = {each.name: read_jsonl(places.resolve(each.glob), source=each.name) for each in config.corpora}
    splits = {"validation": _clean_in_place(base.validation), "test": _clean_in_place(base.test)}
    for name, by_split in corpora.items():
        for split in ("tuning", "reporting"):
            if by_split[split]:
                splits[f"{name}_{split}"] = drop_duplicates(clean_rows(by_split[split]))

    read = base.train + [row for by_split in corpora.values() for row in by_split["train"]]
    unseen = Unseen(
        texts=[row.text for rows in splits.values() for row in rows] + base.unseen_english,
        comment_ids=base.unseen_ids,
        reserved=config.reserved_texts,
    )
    splits["train"], dropped = sift_train(read, unseen, similarity=config.near_duplicate)

    for name, rows in splits.items():
        write_rows(output / f"{name}.jsonl", rows)
    card = _card(splits, dropped=dropped, files={name: output / f"{name}.jsonl" for name in splits})
    (output / CARD_NAME).write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return card


@dataclass(frozen=True, slots=True)
class _GoEmotions:
    """GoEmotions as read, and the English originals and comment ids of validation and test."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    unseen_english: list[str]
    unseen_ids: set[str]


def _read_files(config: DataConfig, places: Places) -> _GoEmotions:
    validation, validation_english = read_csv(Path(places.resolve(config.validation)), source=RUSSIAN)
    test, test_english = read_csv(Path(places.resolve(config.test)), source=RUSSIAN)
    unseen_ids = {row.comment_id for row in validation + test}
    return _GoEmotions(_goemotions_train(config, places), validation, test, validation_english + test_english, unseen_ids)


def _read_translated(folders: Translated) -> _GoEmotions:
    train, validation, test = (read_rows(folders.russian / f"{split}.jsonl") for split in ("train", "validation", "test"))
    english = [row for split in ("validation", "test") for row in read_rows(folders.english / f"{split}.jsonl")]
    return _GoEmotions(train, validation, test, [row.text for row in english], {row.comment_id for row in english})


def _goemotions_train(config: DataConfig, places: Places) -> list[Row]:
    russian = read_tsv(Path(places.resolve(config.russian_train)), source=RUSSIAN, language="ru")
    if not config.english_fill:
        return russian
    covered = {row.comment_id for row in russian} - {""}
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
                "support": label_support(rows),
                "sha256": file_digest(files[name]),
            }
            for name, rows in splits.items()
        },
    }
