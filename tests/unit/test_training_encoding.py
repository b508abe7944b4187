from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from training.finetune.encoding import encode, load_tokenizer

WORDS = ("где", "мой", "еще", "ещё", "ЕЩЁ", "Где", "МОЙ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0} | {word: index for index, word in enumerate(WORDS, 1)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Strip()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_folding_reads_capitals_and_yo_as_their_plain_letters(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder), max_tokens=16, fold_case=True)
    shouted, plain = encode(tokenizer, [" ГДЕ МОЙ ЕЩЁ ", "где мой еще"])
    assert shouted == plain == [1, 2, 3]


def test_folding_is_saved_with_the_tokenizer_and_may_be_asked_for_twice(folder: Path, tmp_path: Path) -> None:
    load_tokenizer(str(folder), max_tokens=16, fold_case=True).save(str(tmp_path / "tokenizer.json"))
    for fold_case in (False, True):
        assert encode(load_tokenizer(str(tmp_path), max_tokens=16, fold_case=fold_case), ["Ещё"]) == [[3]]


def test_without_folding_letters_stay_as_they_are(folder: Path) -> None:
    assert encode(load_tokenizer(str(folder), max_tokens=16), ["ЕЩЁ Где"]) == [[5, 6]]
