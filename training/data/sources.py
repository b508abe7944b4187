"""Readers of the files that corpora come in: GoEmotions' TSV, CSV and Parquet, ru_goemotions' CSV, our JSONL."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from training.config import ConfigError
from training.data.rows import LABEL_INDEX, Row
from worker.core.labels import GOEMOTIONS_LABELS

SPLITS = ("train", "tuning", "reporting")


def parse_label_ids(written: str, *, where: str) -> tuple[str, ...]:
    """Return the labels of ids written in any way: "4,27", "[ 4 27]", "[4, 27]"."""
    return labels_of_ids([int(digits) for digits in re.findall(r"\d+", written)], written=written, where=where)


def labels_of_ids(given: Iterable[Any] | None, *, written: object, where: str) -> tuple[str, ...]:
    """Return the labels of ids, in GoEmotions' order; `written` and `where` are what the error shows."""
    ids = sorted(set(given or ()))
    if not ids or not all(isinstance(each, int) and 0 <= each < len(GOEMOTIONS_LABELS) for each in ids):
        raise ConfigError(
            f"{where}: labels {written!r} are not ids 0..{len(GOEMOTIONS_LABELS) - 1}; is the label column the right one?"
        )
    return tuple(GOEMOTIONS_LABELS[each] for each in ids)


def read_tsv(path: Path, *, source: str, language: str) -> list[Row]:
    """Read text TAB ids TAB comment id."""
    rows = []
    for number, line in enumerate(_lines(path), 1):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) != 3:
            raise ConfigError(f"{path}:{number} has {len(fields)} tab-separated fields, not text, label ids, comment id")
        rows.append(Row(fields[0], parse_label_ids(fields[1], where=f"{path}:{number}"), source, language, fields[2]))
    if not rows:
        raise ConfigError(f"{path} is empty; put the file there anew, or name another in the [data] table")
    return rows


def read_csv(path: Path, *, source: str) -> tuple[list[Row], list[str]]:
    """Read ru_text, text, labels, id; return the Russian rows and, apart, their English originals."""
    records = _records(path, columns=("ru_text", "text", "labels", "id"))
    rows = [
        Row(each["ru_text"], parse_label_ids(each["labels"], where=str(path)), source, "ru", each["id"]) for each in records
    ]
    return rows, [each["text"] for each in records]


def read_english(path: Path, *, source: str) -> list[Row]:
    """Read English GoEmotions from TSV as `read_tsv` does, or from CSV or Parquet with the columns text, labels, id."""
    if path.suffix == ".tsv":
        return read_tsv(path, source=source, language="en")
    if path.suffix == ".csv":
        records = _records(path, columns=("text", "labels", "id"))
        return [
            Row(each["text"], parse_label_ids(each["labels"], where=str(path)), source, "en", each["id"]) for each in records
        ]
    if path.suffix == ".parquet":
        return english_rows(_parquet_records(path), source=source, where=str(path))
    raise ConfigError(f"{path}: only .tsv, .csv and .parquet are read; convert it, or set data.english.hub")


def english_rows(records: Iterable[Mapping[str, Any]], *, source: str, where: str) -> list[Row]:
    """Return rows of records with text, labels (a list of ids) and id, as the Hub has them; `where` is for the error."""
    return [
        Row(each["text"], labels_of_ids(each["labels"], written=each["labels"], where=where), source, "en", each["id"])
        for each in records
    ]


def read_jsonl(pattern: str, *, source: str) -> dict[str, list[Row]]:
    """Read every file that the pattern names; rows by split, `train` where a row names none."""
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for path in sorted(glob(pattern)):  # noqa: PTH207 - the pattern may be absolute
        for number, line in enumerate(_lines(Path(path)), 1):
            try:
                split, row = _corpus_row(json.loads(line), source=source)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f'{path}:{number} is not one object {{"text": ..., "labels": [names of GoEmotions], "split": one of '
                    f"{SPLITS}}} ({error!r}); mend it: {line.strip()[:200]}"
                ) from error
            by_split[split].append(row)
    if not any(by_split.values()):
        raise ConfigError(f"no rows in {pattern}; put the corpus there or take it out of data.corpora")
    return by_split


def _corpus_row(value: dict[str, Any], *, source: str) -> tuple[str, Row]:
    split, labels = value.get("split", "train"), tuple(value["labels"])
    unknown = set(labels) - set(LABEL_INDEX)
    if unknown or not labels or split not in SPLITS:
        raise ValueError(f"labels {list(labels)}, split {split}")
    if not isinstance(value["text"], str):
        raise TypeError(f"text {value['text']}")
    return split, Row(value["text"], labels, source, "ru", value.get("scenario", ""))


def _records(path: Path, *, columns: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(_lines(path))
    records = list(reader)
    missing = set(columns) - set(reader.fieldnames or ())
    if missing:
        raise ConfigError(f"{path} lacks the columns {', '.join(sorted(missing))}; its first line must name them")
    if not records:
        raise ConfigError(f"{path} has no rows; put the file there anew, or name another in the [data] table")
    for number, record in enumerate(records, 1):
        if None in [record[name] for name in columns]:
            raise ConfigError(f"{path}: record {number} has fewer fields than the first line names; mend it: {record}")
    return records


def _parquet_records(path: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        return list(read_table(path, columns=["text", "labels", "id"]).to_pylist())
    except (OSError, ArrowException) as error:
        raise ConfigError(f"can't read text, labels and id from {path} ({error}); check --data-dir and data.english") from error


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from file
    except OSError as error:
        raise ConfigError(f"can't read {path} ({error.strerror}); check --data-dir and the [data] table") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 ({error}); save it as such, or fetch it anew") from error
