import csv
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from hypothesis import given
from hypothesis import strategies as st

from training.config import ConfigError, DataConfig, EnglishConfig, Places, read_config
from training.data.chats import read_whole_chats
from training.data.clean import clean_rows, clean_text, drop_duplicates, text_key
from training.data.download import download
from training.data.leaks import Unseen, sift_train
from training.data.near_duplicates import SHORT, are_near_any, near_repeats
from training.data.prepare import Translated, prepare
from training.data.rows import LABEL_INDEX, Row, multi_hot, read_rows, write_rows
from training.data.sources import parse_label_ids, read_csv, read_english, read_jsonl, read_tsv
from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.model_bundle import file_digest

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def _row(text: str, *labels: str, comment_id: str = "") -> Row:
    return Row(text, labels or ("neutral",), "goemotions_ru", "ru", comment_id)


@pytest.mark.parametrize("written", ["4,27", "[ 4 27]", "[4, 27]", "27 4", "[4 4 27]"])
def test_label_ids_are_read_however_they_are_written(written: str) -> None:
    assert parse_label_ids(written, where="a.csv") == ("approval", "neutral")


@pytest.mark.parametrize("written", ["", "[]", "28", "neutral"])
def test_labels_that_are_no_ids_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.csv: .* not ids"):
        parse_label_ids(written, where="a.csv")


@given(st.sets(st.integers(0, 27), min_size=1))
def test_multi_hot_marks_exactly_the_labels(ids: set[int]) -> None:
    labels = parse_label_ids(" ".join(map(str, ids)), where="")
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


LONG = "Курьер опять опоздал на три часа, и никто не извинился"


def test_every_train_row_that_must_go_is_counted_under_one_reason() -> None:
    rows = [
        _row(" \u200b"),
        _row(LONG, "anger", comment_id="own"),
        _row(LONG, "anger", comment_id="other"),
        _row("Спасибо, всё!"),
        _row("другое", comment_id="seen"),
        _row("Мой пример."),
        _row("Где же мой заказ, я жду его уже целую неделю"),
        _row(LONG + "!!", "anger"),
        _row(LONG + "...", "annoyance"),
        _row("своё"),
    ]
    unseen = Unseen(["спасибо все", "Ну где же мой заказ, я жду его уже целую неделю"], {"seen"}, reserved=["мой пример"])
    kept, dropped = sift_train(rows, unseen, similarity=0.8)
    assert kept == [rows[1], rows[8], rows[9]]
    assert dropped == dict.fromkeys(dropped, 1)
    assert list(dropped) == [
        "empty",
        "duplicates",
        "reserved",
        "comment_id_leaks",
        "exact_leaks",
        "near_leaks",
        "near_duplicates",
    ]


@given(st.lists(st.text(min_size=1), max_size=8), st.lists(st.text(min_size=1), max_size=8))
def test_no_kept_row_shares_its_key_with_an_unseen_text(texts: list[str], unseen: list[str]) -> None:
    kept, dropped = sift_train([_row(text) for text in texts], Unseen(unseen, ()), similarity=0.8)
    assert not {text_key(row.text) for row in kept} & {text_key(text) for text in unseen}
    assert len(kept) + sum(dropped.values()) == len(texts)


@pytest.mark.parametrize(
    ("text", "other", "is_near"),
    [
        (LONG, "Курьер опять опоздал на три часа и никто не извинился", True),
        (LONG, "Курьер опять опоздал на два часа, и никто не извинился", False),
        (LONG, "Курьер опоздал", False),
        ("Спасибо большое!", "спасибо большое", True),
        ("Спасибо большое", "Спасибо больше", False),
        ("Не работает", "Всё не работает", False),
        ("", "", True),
    ],
)
def test_long_texts_are_near_by_their_letters_short_ones_by_their_key(text: str, other: str, is_near: bool) -> None:
    assert are_near_any([text], [other], similarity=0.8).tolist() == [is_near]


_sentences = st.lists(st.sampled_from("где мой заказ опять не привезли верните деньги сегодня завтра".split()), max_size=9)


@given(st.lists(_sentences, max_size=9), st.lists(_sentences, max_size=9), st.sampled_from([0.3, 0.6, 0.8, 1.0]))
def test_near_texts_are_exactly_those_of_the_definition(first: list, second: list, similarity: float) -> None:
    texts, others = [" ".join(words) for words in first], [" ".join(words) for words in second]

    def grams(text: str) -> set[str]:
        return {text[at : at + 5] for at in range(len(text) - 4)} if len(text) >= SHORT else set()

    def is_near(one: str, other: str) -> bool:
        shared, either = len(grams(one) & grams(other)), len(grams(one) | grams(other))
        return one == other or (shared > 0 and shared >= similarity * either)

    expected = [any(is_near(text, other) for other in others) for text in texts]
    assert are_near_any(texts, others, similarity=similarity).tolist() == expected


def test_of_near_repeats_the_first_stays_and_labels_tell_them_apart() -> None:
    texts = [LONG, LONG.upper(), LONG + "!", "Да", "да!", "нет"]
    groups = ["anger", "anger", "annoyance", "joy", "joy", "joy"]
    assert near_repeats(texts, groups, similarity=0.8).tolist() == [False, True, False, False, True, False]


def test_thousands_of_texts_are_compared_in_seconds() -> None:
    chance = random.Random(0)
    words = ["".join(chance.choices("аеиолнрст", k=chance.randint(2, 9))) for _ in range(3000)]
    texts = [" ".join(chance.choices(words, k=12)) for _ in range(6000)]
    started = time.monotonic()
    assert are_near_any(texts, texts[:1200], similarity=0.8).tolist() == [True] * 1200 + [False] * 4800
    assert time.monotonic() - started < 30


def test_rows_survive_writing_and_reading(tmp_path: Path) -> None:
    rows = [_row("строка «раз»\u2028", "joy", "love", comment_id="x")]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_tsv_with_a_wrong_number_of_fields_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("да\t27\tid\nнет\t27\n", "utf-8")
    with pytest.raises(ConfigError, match=r"rows\.tsv:2"):
        read_tsv(path, source="s", language="ru")


def test_tsv_with_windows_line_ends_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes("да\t27\tid\r\n".encode())
    assert read_tsv(tmp_path / "rows.tsv", source="s", language="ru") == [Row("да", ("neutral",), "s", "ru", "id")]


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [
        ("rows.tsv", b"", "is empty"),
        ("rows.tsv", "да\t27\tid\nнет\tjoy\tid2\n".encode(), r"rows\.tsv:2: .* label column"),
        ("rows.tsv", "да\t27\tid\n".encode("cp1251"), "is not UTF-8"),
        ("rows.csv", b"text,labels,id\n", "has no rows"),
        ("rows.csv", b"text,labels,id\nyes,[1],a\nno,[2]\n", "record 2 has fewer fields"),
        ("rows.csv", b"text,labels,id\nyes,joy,a\n", r"rows\.csv: .* label column"),
    ],
)
def test_files_with_a_fault_are_told_by_it(tmp_path: Path, name: str, written: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(written)
    with pytest.raises(ConfigError, match=expected):
        read_english(tmp_path / name, source="e")


@pytest.mark.parametrize("labels", [["[4]"], [None], [[4.5]]])
def test_parquet_whose_labels_are_no_lists_of_ids_is_refused(tmp_path: Path, labels: list) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "labels": labels, "id": ["x"]}), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=r"rows\.parquet: .* label column"):
        read_english(tmp_path / "rows.parquet", source="e")


def test_rows_without_a_comment_id_are_no_leak_of_each_other() -> None:
    kept, dropped = sift_train([_row("один"), _row("два", comment_id="seen")], Unseen([], {"", "seen"}), similarity=0.8)
    assert [row.text for row in kept] == ["один"]
    assert dropped["comment_id_leaks"] == 1


def test_csv_gives_russian_rows_and_english_originals(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('ru_text,text,labels,id\n"Да, ""вот""",yes,[ 4 27],id1\n', "utf-8")
    rows, english = read_csv(path, source="s")
    assert rows == [Row('Да, "вот"', ("approval", "neutral"), "s", "ru", "id1")]
    assert english == ["yes"]


ENGLISH = [Row('Oh, "that"', ("approval", "neutral"), "e", "en", "id1"), Row("why", ("joy",), "e", "en", "id2")]


def _write_english(path: Path) -> None:
    ids = [[LABEL_INDEX[label] for label in row.labels] for row in ENGLISH]
    if path.suffix == ".parquet":
        table = {"text": [row.text for row in ENGLISH], "labels": ids, "id": [row.comment_id for row in ENGLISH]}
        pyarrow.parquet.write_table(pyarrow.table(table), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "text", "labels"])
            writer.writerows([row.comment_id, row.text, each] for row, each in zip(ENGLISH, ids, strict=True))
    else:
        lines = [f"{row.text}\t{each}\t{row.comment_id}\n" for row, each in zip(ENGLISH, ids, strict=True)]
        path.write_text("".join(lines), "utf-8")


@pytest.mark.parametrize("suffix", ["tsv", "csv", "parquet"])
def test_english_files_of_every_kind_are_downloaded_with_a_card(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    _write_english(path)
    named = f"{{data}}/rows.{suffix}"
    config = EnglishConfig(train=named, validation=named, test=named)
    card = download(config, Places(data=tmp_path, models=tmp_path, runs=tmp_path), output=tmp_path)
    assert read_rows(tmp_path / "validation.jsonl") == [replace(row, source="goemotions_en") for row in ENGLISH]
    assert json.loads((tmp_path / "corpus_card.json").read_text("utf-8")) == card
    assert card["origin"]["files"]["train"] == {"name": path.name, "sha256": file_digest(path)}
    assert card["splits"]["test"]["rows"] == 2
    assert {label for label, count in card["splits"]["test"]["support"].items() if count} == {"approval", "neutral", "joy"}
    assert card["splits"]["test"]["sha256"] == file_digest(tmp_path / "test.jsonl")


def test_english_files_that_can_t_be_read_say_so(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text("[]", "utf-8")
    for name, expected in (("rows.parquet", "text, labels and id"), ("rows.json", r"\.tsv, \.csv and \.parquet")):
        with pytest.raises(ConfigError, match=expected):
            read_english(tmp_path / name, source="e")
    for name in ("none.parquet", "none.csv"):
        with pytest.raises(ConfigError, match="--data-dir"):
            read_english(tmp_path / name, source="e")


def test_a_hub_out_of_reach_says_to_go_online_or_give_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    places = Places(data=tmp_path, models=tmp_path, runs=tmp_path)
    with pytest.raises(ConfigError, match="go online, or give local files"):
        download(EnglishConfig(hub="google-research-datasets/go_emotions"), places, output=tmp_path)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"text": Value("string"), "id": Value("string")}, "lacks the columns labels"),
        ({"text": Value("string"), "labels": Sequence(ClassLabel(names=["joy", "anger"])), "id": Value("string")}, "orders"),
    ],
)
def test_a_data_set_with_other_columns_or_labels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: dict, expected: str
) -> None:
    rows = [{name: [0] if name == "labels" else "x" for name in features}]
    data_set = Dataset.from_list(rows, features=Features(features))
    splits = DatasetDict(dict.fromkeys(("train", "validation", "test"), data_set))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: splits)
    places = Places(data=tmp_path, models=tmp_path, runs=tmp_path)
    with pytest.raises(ConfigError, match=expected):
        download(EnglishConfig(hub="some/other"), places, output=tmp_path)


@pytest.mark.parametrize(
    "settings",
    [{}, {"train": "a", "test": "b"}, {"hub": "x", "train": "a"}, {"hub": "x", "train": "a", "validation": "b", "test": "c"}],
)
def test_english_comes_from_the_hub_or_from_three_files(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either hub, or all of"):
        EnglishConfig(**settings)


def test_translated_rows_take_the_place_of_the_russian_files(tmp_path: Path) -> None:
    english, russian, output = (tmp_path / name for name in ("english", "russian", "output"))
    for folder in (english, russian, output):
        folder.mkdir()
    for split, number in (("train", 1), ("validation", 2), ("test", 3)):
        write_rows(
            english / f"{split}.jsonl", [_row(f"{number} english", comment_id=str(number)), _row("lost", comment_id="lost")]
        )
        write_rows(russian / f"{split}.jsonl", [_row(f"{number} русский", comment_id=str(number))])
    write_rows(russian / "train.jsonl", [_row("1 русский", comment_id="1"), _row("2 English"), _row("а", comment_id="lost")])
    places = Places(data=tmp_path, models=tmp_path, runs=tmp_path)
    card = prepare(DataConfig(), places, output=output, translated=Translated(english, russian))
    assert {split: [row.text for row in read_rows(output / f"{split}.jsonl")] for split in ("train", "validation", "test")} == {
        "train": ["1 русский"],
        "validation": ["2 русский"],
        "test": ["3 русский"],
    }
    assert card["dropped_from_train"]["exact_leaks"] == card["dropped_from_train"]["comment_id_leaks"] == 1


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


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "раз", "labels": ["rage"]}',
        '{"text": "раз", "labels": []}',
        '{"text": "раз", "labels": ["joy"], "split": "test"}',
        '{"text": "раз"}',
        '{"text": null, "labels": ["joy"]}',
        '["раз", "joy"]',
        '{"text": "раз", "labels": ["jo',
        "",
    ],
)
def test_jsonl_whose_rows_are_not_as_described_is_refused_by_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n", "utf-8")
    with pytest.raises(ConfigError, match=r"a\.jsonl:1"):
        read_jsonl(str(tmp_path / "*.jsonl"), source="support")


@pytest.mark.parametrize(
    ("written", "expected"),
    [("\n", "has no chats"), ('{"chat_id": "1", "escalates": "false", "messages": []}\n', "must be true or false")],
)
def test_chats_that_can_t_be_scored_are_refused(tmp_path: Path, written: str, expected: str) -> None:
    (tmp_path / "chats.jsonl").write_text(written, "utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_whole_chats(tmp_path / "chats.jsonl")


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


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes('run = "x"  # строка'.encode("cp1251"))
    with pytest.raises(ConfigError, match="not TOML in UTF-8"):
        read_config(path)


@pytest.mark.parametrize("loss", ["focal_gamma = 1.0", "asymmetric = { gamma_neg = 2 }"])
def test_a_loss_that_distillation_would_not_use_is_refused(tmp_path: Path, loss: str) -> None:
    path = tmp_path / "distil.toml"
    written = (
        (CONFIGS / "goemotions.toml").read_text("utf-8").replace('recipe = "distil"', f'recipe = "distil"\nloss = {{ {loss} }}')
    )
    path.write_text(written, "utf-8")
    with pytest.raises(ConfigError, match="takes pos_weight alone"):
        read_config(path)


@pytest.mark.parametrize("path", ["{home}/x", "{data", "{}/x"])
def test_other_braces_in_a_path_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="may be in braces"):
        Places(data=tmp_path, models=tmp_path, runs=tmp_path).resolve(path)


def test_places_fill_in_a_configuration_s_paths(tmp_path: Path) -> None:
    places = Places(data=tmp_path / "d", models=tmp_path / "m", runs=tmp_path / "r")
    assert places.resolve("{data}/x.tsv") == str(tmp_path / "d" / "x.tsv")
    assert places.resolve("cointegrated/rubert-tiny2") == "cointegrated/rubert-tiny2"
