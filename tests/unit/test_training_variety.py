import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from training.__main__ import app
from training.config import ConfigError
from training.data.variety import measure_variety, nearest_similarities, read_corpus


def _row(text: str, *, form: str = "question", labels: tuple[str, ...] = ("neutral",)) -> dict[str, object]:
    return {
        "text": text,
        "labels": list(labels),
        "scenario": "bank-01",
        "form": form,
        "voice": "plain",
        "author": "client",
        "domain": "bank",
    }


def test_repeated_trigrams_are_counted_once() -> None:
    variety = measure_variety([_row("где мой новый заказ"), _row("Где мой новый, номер семь")])
    assert variety.distinct_trigrams == pytest.approx(4 / 5)


def test_a_template_with_a_slot_filled_shows_as_a_near_neighbour() -> None:
    texts = ["верните деньги за заказ номер 17", "верните деньги за заказ номер 18", "в раковине паук", "люблю ваш кофе"]
    nearest = nearest_similarities(texts)
    assert nearest[:2].min() > 0.8
    assert nearest[2:].max() < 0.3
    assert np.all(nearest <= 1 + 1e-9)


def test_shares_are_of_rows_and_labels_may_add_up_to_more_than_one() -> None:
    rows = [_row("да", form="one_word"), _row("враньё и гадость", labels=("anger", "disgust"))]
    shares = measure_variety(rows).shares
    assert shares["form"] == {"one_word": 0.5, "question": 0.5}
    assert shares["label"] == {"neutral": 0.5, "anger": 0.5, "disgust": 0.5}


def test_an_empty_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--corpus"):
        read_corpus(tmp_path)


def test_rows_without_a_field_are_told_by_it(tmp_path: Path) -> None:
    row = {name: value for name, value in _row("где заказ").items() if name not in ("voice", "domain")}
    (tmp_path / "bank.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match="lack domain, voice"):
        read_corpus(tmp_path)


def test_the_command_prints_the_figures(tmp_path: Path) -> None:
    (tmp_path / "bank.jsonl").write_text("".join(json.dumps(_row(text)) + "\n" for text in ("раз два три", "четыре пять")))
    printed = CliRunner().invoke(app, ["variety", "--corpus", str(tmp_path)]).output
    assert "2 messages in 1 scenarios" in printed
    assert "distinct word trigrams: 100.0%" in printed
