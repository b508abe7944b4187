from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import ConfigError, Places, read_config
from training.data.clean import clean_rows, clean_text, drop_duplicates, drop_leaks, text_key
from training.data.rows import Row, multi_hot, read_rows, write_rows
from training.data.sources import parse_label_ids, read_csv, read_jsonl, read_tsv
from worker.core.labels import GOEMOTIONS_LABELS

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def _row(text: str, *labels: str, comment_id: str = "") -> Row:
    return Row(text, labels or ("neutral",), "goemotions_ru", "ru", comment_id)


@pytest.mark.parametrize("written", ["4,27", "[ 4 27]", "[4, 27]", "27 4", "[4 4 27]"])
def test_label_ids_are_read_however_they_are_written(written: str) -> None:
    assert parse_label_ids(written) == ("approval", "neutral")


@pytest.mark.parametrize("written", ["", "[]", "28", "neutral"])
def test_labels_that_are_no_ids_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="not ids"):
        parse_label_ids(written)


@given(st.sets(st.integers(0, 27), min_size=1))
def test_multi_hot_marks_exactly_the_labels(ids: set[int]) -> None:
    labels = parse_label_ids(" ".join(map(str, ids)))
    assert set(np.flatnonzero(multi_hot([_row("а", *labels)])[0])) == ids


def test_multi_hot_columns_are_in_goemotions_order() -> None:
    assert multi_hot([_row("а", label) for label in GOEMOTIONS_LABELS]).tolist() == np.eye(28).tolist()


def test_cleaning_removes_invisible_characters_and_extra_spaces() -> None:
    assert clean_text("  при\u200bвет\u00ad,\n\n мир\ufeff ") == "привет, мир"
    assert [row.text for row in clean_rows([_row(" \u200b "), _row("да")])] == ["да"]


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean_text(clean_text(text)) == clean_text(text)


def test_duplicates_go_and_the_first_stays_in_place() -> None:
    rows = [_row("а", "joy", comment_id="1"), _row("б"), _row("а", "joy", comment_id="2"), _row("а", "love")]
    assert drop_duplicates(rows) == [rows[0], rows[1], rows[3]]


def test_texts_that_differ_in_case_punctuation_or_yo_have_one_key() -> None:
    assert text_key("Ещё раз, СПАСИБО!") == text_key("еще раз спасибо")
    assert text_key("?!") != text_key("...")


def test_rows_that_occur_in_validation_or_test_are_dropped() -> None:
    rows = [_row("Спасибо, всё!"), _row("другое", comment_id="seen"), _row("своё", comment_id="own")]
    assert drop_leaks(rows, texts=["спасибо все"], comment_ids={"seen"}) == [rows[2]]


@given(st.lists(st.text(min_size=1), max_size=8), st.lists(st.text(min_size=1), max_size=8))
def test_no_kept_row_shares_its_key_with_an_unseen_text(texts: list[str], unseen: list[str]) -> None:
    kept = drop_leaks([_row(text) for text in texts], texts=unseen)
    assert not {text_key(row.text) for row in kept} & {text_key(text) for text in unseen}


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    rows = [_row("строка «раз»\u2028", "joy", "love", comment_id="x")]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_tsv_with_a_wrong_number_of_fields_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("да\t27\tid\nнет\t27\n", "utf-8")
    with pytest.raises(ConfigError, match=r"rows\.tsv:2"):
        read_tsv(path, source="s", language="ru")


def test_csv_gives_russian_rows_and_english_originals(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('ru_text,text,labels,id\n"Да, ""вот""",yes,[ 4 27],id1\n', "utf-8")
    rows, english = read_csv(path, source="s")
    assert rows == [Row('Да, "вот"', ("approval", "neutral"), "s", "ru", "id1")]
    assert english == ["yes"]


def test_csv_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,labels\nда,[1]\n", "utf-8")
    with pytest.raises(ConfigError, match="id, ru_text"):
        read_csv(tmp_path / "rows.csv", source="s")


def test_jsonl_rows_go_to_their_splits(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "раз", "labels": ["joy"], "split": "tuning"}\n{"text": "два", "labels": ["anger"]}\n',
        "utf-8",
    )
    by_split = read_jsonl(str(tmp_path / "*.jsonl"), source="support")
    assert [row.text for row in by_split["tuning"]] == ["раз"]
    assert [row.text for row in by_split["train"]] == ["два"]


@pytest.mark.parametrize("line", ['{"text": "раз", "labels": ["rage"]}', '{"text": "раз", "labels": []}'])
def test_jsonl_with_labels_that_goemotions_lacks_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n", "utf-8")
    with pytest.raises(ConfigError, match=r"a\.jsonl:1"):
        read_jsonl(str(tmp_path / "*.jsonl"), source="support")


def test_a_missing_corpus_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.corpora"):
        read_jsonl(str(tmp_path / "*.jsonl"), source="support")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    assert read_config(path).run == path.stem


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('run = "x"\n[train]\nepoch = 3\n[bundle]\nbase = "b"\n', "utf-8")
    with pytest.raises(ConfigError, match=r"train\.epoch"):
        read_config(path)


def test_places_fill_in_a_configuration_s_paths(tmp_path: Path) -> None:
    places = Places(data=tmp_path / "d", models=tmp_path / "m", runs=tmp_path / "r")
    assert places.resolve("{data}/x.tsv") == str(tmp_path / "d" / "x.tsv")
    assert places.resolve("cointegrated/rubert-tiny2") == "cointegrated/rubert-tiny2"
