from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from training.config import ConfigError, ModelConfig, Places
from training.finetune.encoding import load_tokenizer
from training.finetune.student import build_student, read_embeddings, reduce_embeddings
from training.finetune.vocabulary import own_vocabulary

TEXTS = ["верните деньги за заказ", "где заказ", "где деньги, где заказ!", "ой"]
FOREIGN = ["argent", "remboursez", "geld", "zurück"]
WORDS = ["верните", "деньги", "заказ", "где", "за", "Где", *FOREIGN]
LETTERS = "абвгдезийклнортьыцВГabceglmnortuz,!字ü"


def _unigram() -> Tokenizer:
    """XLM-RoBERTa's layout; its mask lies after the model's own pieces, outside of them."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0 - index) for index, word in enumerate(reversed(WORDS))]
    pieces += [(letter, -30.0) for letter in LETTERS] + [("рни", -20.0), ("▁де", -19.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.enable_truncation(12)
    return tokenizer


def _word_piece() -> Tokenizer:
    """BERT's layout, with unused pieces before its special ones."""
    pieces = ["[PAD]", "[unused1]", "[unused2]", *FOREIGN, "[UNK]", "[CLS]", "[SEP]"]
    pieces += [*WORDS[:5], *LETTERS.lower()[:18], *(f"##{letter}" for letter in LETTERS.lower()[:18]), ",", "!", "##рните"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    ends = [(token, vocabulary[token]) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.BertProcessing(*ends)
    return tokenizer


@pytest.mark.parametrize("donor", [_unigram(), _word_piece()], ids=["unigram", "word-piece"])
def test_texts_whose_pieces_were_kept_are_cut_as_by_the_donor(donor: Tokenizer) -> None:
    own = own_vocabulary(donor, TEXTS, size=1000)
    for text in [*TEXTS, "деньги где", "за за за !"]:
        before, after = donor.encode(text), own.tokenizer.encode(text)
        assert after.tokens == before.tokens
        assert [own.kept[number] for number in after.ids] == before.ids
    assert own.tokenizer.get_vocab_size() == len(own.kept) < donor.get_vocab_size()
    assert not set(FOREIGN) & {piece.removeprefix("▁") for piece in own.tokenizer.get_vocab()}


@pytest.mark.parametrize("donor", [_unigram(), _word_piece()], ids=["unigram", "word-piece"])
def test_every_piece_keeps_the_donor_s_row(donor: Tokenizer) -> None:
    own = own_vocabulary(donor, TEXTS, size=1000)
    assert [donor.id_to_token(old) for old in own.kept] == [own.tokenizer.id_to_token(new) for new in range(len(own.kept))]
    for special in ("<s>", "<mask>", "<unk>") if donor.token_to_id("<s>") == 0 else ("[PAD]", "[UNK]", "[CLS]"):
        assert own.kept[own.tokenizer.token_to_id(special)] == donor.token_to_id(special)


@pytest.mark.parametrize("donor", [_unigram(), _word_piece()], ids=["unigram", "word-piece"])
def test_pieces_go_in_order_of_their_frequency(donor: Tokenizer) -> None:
    most = len(own_vocabulary(donor, TEXTS, size=1000).kept)
    for fewer, expected in ((2, {"где", "заказ", "деньги"}), (3, {"где", "заказ"})):
        own = own_vocabulary(donor, TEXTS, size=most - fewer)
        assert {piece.removeprefix("▁") for piece in own.tokenizer.get_vocab()} & set(WORDS) == expected
        assert own.tokenizer.get_vocab_size() == most - fewer


@pytest.mark.parametrize("donor", [_unigram(), _word_piece()], ids=["unigram", "word-piece"])
def test_words_that_were_dropped_are_spelled_in_letters(donor: Tokenizer) -> None:
    own = own_vocabulary(donor, ["где"], size=1000)
    spelled = own.tokenizer.encode("деньги").tokens[1:-1]
    assert "".join(piece.removeprefix("##") for piece in spelled).removeprefix("▁") == "деньги"
    assert len(spelled) >= 6


def test_characters_that_nobody_knows_become_the_unknown_piece_alone() -> None:
    own = own_vocabulary(_unigram(), TEXTS, size=1000)
    assert own.tokenizer.encode("где字ы").tokens == ["<s>", "▁где", "字", "ы", "</s>"]
    encoding = own.tokenizer.encode("где 😡 заказ")
    assert encoding.ids[3] == own.tokenizer.token_to_id("<unk>")
    assert encoding.tokens[-2] == "▁заказ"


def test_letters_that_only_other_languages_use_go() -> None:
    assert own_vocabulary(_unigram(), TEXTS, size=1000).tokenizer.token_to_id("字") is None
    assert own_vocabulary(_unigram(), [*TEXTS, "字"], size=1000).tokenizer.token_to_id("字") is not None


def test_a_cut_tokenizer_still_truncates() -> None:
    own = own_vocabulary(_unigram(), TEXTS, size=1000)
    assert len(own.tokenizer.encode("где " * 30).ids) == 12


def test_a_folding_tokenizer_keeps_the_pieces_of_folded_texts(tmp_path: Path) -> None:
    _unigram().save(str(tmp_path / "tokenizer.json"))
    shouted = [text.upper() for text in TEXTS]
    folding = load_tokenizer(str(tmp_path), max_tokens=12, fold_case=True)
    own = own_vocabulary(folding, shouted, size=1000)
    assert own.tokenizer.token_to_id("▁где") is not None
    assert own.tokenizer.token_to_id("В") is None
    assert own.tokenizer.encode("ГДЕ заказ").tokens == ["<s>", "▁где", "▁заказ", "</s>"]
    assert own_vocabulary(_unigram(), shouted, size=1000).tokenizer.token_to_id("▁где") is None


def test_a_size_that_not_even_the_letters_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocabulary_size is 20; .* raise it"):
        own_vocabulary(_unigram(), TEXTS, size=20)


def test_other_kinds_of_tokenizer_are_refused() -> None:
    donor = Tokenizer(models.BPE({"а": 0, "б": 1, "аб": 2}, [("а", "б")]))
    with pytest.raises(ConfigError, match="BPE tokenizer, only Unigram and WordPiece"):
        own_vocabulary(donor, TEXTS, size=1000)


@pytest.mark.parametrize("settings", [{}, {"embeddings_from": "x", "start_from": "y"}, {"start_from": "y"}])
def test_only_a_donor_s_vocabulary_is_cut(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs embeddings_from and no start_from"):
        ModelConfig(vocabulary_size=100, **settings)


@pytest.mark.parametrize("donor", [_unigram(), _word_piece()], ids=["unigram", "word-piece"])
def test_a_student_with_its_own_vocabulary_has_the_donor_s_rows_reduced(donor: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=donor.get_vocab_size() + 5, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "donor")
    donor.save(str(tmp_path / "donor" / "tokenizer.json"))
    sizes = {"hidden_size": 12, "layers": 1, "heads": 2, "intermediate_size": 16, "max_positions": 48, "max_tokens": 12}
    model = ModelConfig(embeddings_from=str(tmp_path / "donor"), vocabulary_size=1000, **sizes)
    student, tokenizer = build_student(model, Places(tmp_path, tmp_path, tmp_path), texts=TEXTS)
    whole = read_embeddings(tmp_path / "donor")
    rows = whole.words[[donor.token_to_id(tokenizer.id_to_token(number)) for number in range(tokenizer.get_vocab_size())]]
    table = student.bert.embeddings.word_embeddings.weight
    assert student.config.vocab_size == len(table) == len(rows)
    assert torch.equal(table, reduce_embeddings(replace(whole, words=rows), width=12, std=0.05).words)
