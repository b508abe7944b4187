"""A real MarianMT model, small enough to be trained in a test, that translates word for word.

It knows the words below. "lol" it leaves in English, "loop" makes it repeat itself, and of stand-ins for placeholders it
copies the first two but not the third: so the ways in which translations fail can be seen.
"""

import json
import random
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

RUSSIAN = {
    "mum": "мама", "washed": "мыла", "frame": "раму", "thanks": "спасибо", "horror": "ужас", "courier": "курьер",
    "money": "деньги", "return": "верните", "where": "где", "order": "заказ", "love": "люблю", "you": "вас",
    "nightmare": "кошмар", "help": "помогите", "hello": "привет", "glad": "рада", "again": "опять", "wait": "ждать",
}  # fmt: skip
UNTRANSLATED, LOOP = "lol", "loop"
_STAND_INS = ("Z1", "Z2", "Z3")
_MISTAKES = {LOOP: "да да да да да да да да", "Z3": "забыла"}
_STEPS = 400
_SPECIAL = {"</s>": 0, "<unk>": 1}


def translation_of(text: str) -> str:
    """Return what the trained model writes."""
    known = RUSSIAN | _MISTAKES
    return " ".join(known.get(word, word) for word in text.split())


def make_tiny_translator(folder: Path) -> Path:
    """Train sentencepiece models and a one-layer Marian on made-up sentences; write the model as the Hub has one."""
    folder.mkdir(parents=True)
    chance = random.Random(0)
    sentences = [_sentence(chance) for _ in range(4000)]
    vocabulary = dict(_SPECIAL)
    for name, texts in (("source", sentences), ("target", [translation_of(text) for text in sentences])):
        for piece in _train_pieces(folder / f"{name}.spm", texts):
            vocabulary.setdefault(piece, len(vocabulary))
    vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    tokenizer = MarianTokenizer(str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"))
    tokenizer.save_pretrained(folder)
    model = _untrained(vocabulary)
    _train(model, tokenizer, sentences)
    share_right = _share_right(model, tokenizer)
    assert share_right > 0.8, f"the tiny translator learned too little ({share_right:.0%}); train it for more steps"
    model.save_pretrained(folder)
    return folder


def _sentence(chance: random.Random) -> str:
    words = chance.choices(list(RUSSIAN), k=chance.randint(1, 6))
    for stand_in in _STAND_INS[: chance.choice((0, 0, 1, 2, 3))]:
        words.insert(chance.randint(0, len(words)), stand_in)
    if chance.random() < 0.25:
        words.insert(chance.randint(0, len(words)), chance.choice((UNTRANSLATED, LOOP)))
    return " ".join(words)


def _train_pieces(path: Path, texts: list[str]) -> list[str]:
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=file, model_type="bpe", vocab_size=160, hard_vocab_limit=False,
            character_coverage=1.0, num_threads=1, minloglevel=2,
        )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size()) if not processor.is_control(index)]


def _untrained(vocabulary: dict[str, int]) -> MarianMTModel:
    torch.manual_seed(0)
    pad = vocabulary["<pad>"]
    return MarianMTModel(
        MarianConfig(
            vocab_size=len(vocabulary), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, dropout=0.0,
            pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=0, forced_eos_token_id=0, scale_embedding=True,
        )
    )  # fmt: skip


def _train(model: MarianMTModel, tokenizer: MarianTokenizer, sentences: list[str]) -> None:
    chance = random.Random(1)
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=_STEPS)
    inputs = [tokenizer(text)["input_ids"] for text in sentences]
    labels = [tokenizer(text_target=translation_of(text))["input_ids"] for text in sentences]
    for _ in range(_STEPS):
        rows = chance.sample(range(len(sentences)), 48)
        batch = tokenizer.pad({"input_ids": [inputs[row] for row in rows]}, return_tensors="pt")
        target = tokenizer.pad({"input_ids": [labels[row] for row in rows]}, return_tensors="pt")
        masked = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
        model(**batch, labels=masked).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()


def _share_right(model: MarianMTModel, tokenizer: MarianTokenizer) -> float:
    chance = random.Random(2)
    sentences = [_sentence(chance) for _ in range(100)]
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    written = tokenizer.batch_decode(model.eval().generate(**inputs, max_new_tokens=40), skip_special_tokens=True)
    return sum(said == translation_of(text) for said, text in zip(written, sentences, strict=True)) / len(sentences)
