"""Models, corpora and configurations small enough for a whole training run in seconds, and the command line to run them."""

import csv
import json
import random
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from tests.support.tiny_translator import LOOP, RUSSIAN, UNTRANSLATED
from training.__main__ import app
from training.finetune.teacher import Teacher, save_teacher
from worker.core.labels import GOEMOTIONS_LABELS

WORDS = list(RUSSIAN.values())


def run_training(root: Path, *words: str, config: str) -> str:
    """Run `python -m training <words>` with root/<config>.toml in root's folders; return what it printed."""
    places = ["--data-dir", root / "data", "--models-dir", root / "models", "--runs-dir", root / "runs"]
    places += ["--bundles-dir", root / "bundles"]
    result = CliRunner().invoke(
        app, [*words, "--config", str(root / f"{config}.toml"), *map(str, places)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def write_models(folder: Path) -> None:
    """Write `donor`, an untrained encoder, and `teacher`, the same with a head."""
    torch.manual_seed(0)
    tokenizer = _tiny_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        pad_token_id=1,
    )
    encoder = BertModel(config, add_pooling_layer=False)
    encoder.save_pretrained(folder / "donor")
    tokenizer.save(str(folder / "donor" / "tokenizer.json"))
    teacher = Teacher(encoder, torch.nn.Linear(24, 28))
    save_teacher(teacher, folder / "teacher", tokenizer=tokenizer)


def _tiny_tokenizer() -> Tokenizer:
    vocabulary = [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        *"абвгдеёжзийклмнопрстуфхцчшщъыьэюяabcdefghijklmnopqrstuvwxyz0123456789.,!?-",
        "▁",
    ]
    pieces = [(piece, -1.0 if piece in WORDS else -5.0) for piece in vocabulary + [f"▁{word}" for word in WORDS]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def write_corpora(folder: Path) -> None:
    """Write Russian and English GoEmotions as files, and support chats."""
    chance = random.Random(0)

    def text(number: int) -> str:
        return " ".join(chance.choices(WORDS, k=6)) + f" {number}"

    folder.mkdir()
    rows = [(text(number), str(number % 28), f"c{number}") for number in range(140)]
    (folder / "ru_train.tsv").write_text("".join("\t".join(row) + "\n" for row in rows[:112]), "utf-8")
    (folder / "goemotions_en_train.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), "utf-8")
    for split, start in (("validation", 1000), ("test", 2000)):
        with (folder / f"ru_goemotions_{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ru_text", "text", "labels", "id"])
            writer.writerows([text(start + n), f"english {start + n}", f"[ {n % 28}]", f"{split}{n}"] for n in range(56))
    with (folder / "support.jsonl").open("w", encoding="utf-8") as file:
        for number in range(30):
            split = ("train", "tuning", "reporting")[number % 3]
            labels = [("anger", "neutral", "sadness", "gratitude")[number % 4]]
            value = {"text": text(3000 + number), "labels": labels, "scenario": f"s{number % 3}", "split": split}
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
    lines = [json.dumps(chat, ensure_ascii=False) for chat in CHATS]
    (folder / "whole_chats.jsonl").write_text("\n".join(lines), "utf-8")


CHATS = [
    {"chat_id": "angry", "escalates": True, "messages": [{"author": "client", "text": "ужас верните деньги"}] * 3},
    {"chat_id": "calm", "escalates": False, "messages": [{"author": "client", "text": "спасибо мама"}]},
]


HUB_ROWS = {"train": 120, "validation": 56, "test": 56}
ODD_ROWS = {
    "untranslated": f"{UNTRANSLATED} {UNTRANSLATED}",
    "looped": f"help {LOOP} again",
    "copied": "[NAME] 😂",
    "named": "[NAME] love [RELIGION] again",
    "in_pieces": "hello [NAME] courier [RELIGION] order [NAME] wait",
    "with_emoji": "thanks 😂 glad 😂",
}
"""Comment ids and texts of train rows besides plain words, named by what becomes of them."""


def write_hub_data_set(folder: Path) -> None:
    """Write English GoEmotions laid out as on the Hub: Parquet files of the subset `simplified`, named in README.md."""
    chance = random.Random(3)
    features = Features(
        {"text": Value("string"), "labels": Sequence(ClassLabel(names=list(GOEMOTIONS_LABELS))), "id": Value("string")}
    )
    (folder / "simplified").mkdir(parents=True)
    lines = ["---", "configs:", "- config_name: simplified", "  data_files:"]
    for split, count in HUB_ROWS.items():
        rows = [
            {"text": " ".join(chance.choices(list(RUSSIAN), k=6)), "labels": [number % 28], "id": f"{split}{number}"}
            for number in range(count)
        ]
        if split == "train":
            rows += [{"text": text, "labels": [0, 27], "id": name} for name, text in ODD_ROWS.items()]
        Dataset.from_list(rows, features=features).to_parquet(folder / "simplified" / f"{split}-00000-of-00001.parquet")
        lines += [f"  - split: {split}", f"    path: simplified/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), "utf-8")


DISTILLED_CONFIG = """
run = "tiny"
[data]
reserved_texts = ["мама мыла раму"]
[[data.corpora]]
name = "support"
glob = "{data}/support.jsonl"
licence = "MIT"
origin = "a test"
repeat = 2
teacher_repeat = 2
[model]
embeddings_from = "{models}/donor"
vocabulary_size = 90
hidden_size = 12
layers = 1
heads = 2
intermediate_size = 16
max_positions = 48
max_tokens = 32
[teacher]
folder = "{models}/teacher"
replay_rows = 50
variations = 2
for_goemotions = "{models}/teacher"
tune = { epochs = 1, learning_rate = 1e-3, batch_size = 16 }
[train]
recipe = "distil"
optimiser = { epochs = 2, learning_rate = 5e-3, batch_size = 16 }
noise = { share = 0.5 }
[thresholds]
max_false_alarms = 0.2
max_macro_loss = 1.0
[evaluation]
chats = ["{data}/whole_chats.jsonl"]
[bundle]
name = "tiny"
base = "nothing"
"""

PLAIN_CONFIG = """
run = "plain"
[data]
english_fill = false
[model]
base = "{models}/donor"
max_tokens = 32
[train]
recipe = "finetune"
optimiser = { epochs = 2, learning_rate = 1e-3, batch_size = 32 }
loss = { pos_weight = "effective_number", focal_gamma = 1.0 }
patience = 1
[bundle]
base = "nothing"
"""

HUB_CONFIG = """
run = "hub"
[data]
reserved_texts = ["мама мыла раму"]
[data.english]
hub = "{data}/go_emotions"
[[data.corpora]]
name = "support"
glob = "{data}/support.jsonl"
licence = "MIT"
origin = "a test"
[translation]
model = "{models}/en-ru"
beams = 2
max_tokens = 40
batch_size = 16
chunk_size = 60
[model]
base = "{models}/donor"
max_tokens = 32
[train]
recipe = "finetune"
optimiser = { epochs = 2, learning_rate = 1e-3, batch_size = 32 }
loss = { pos_weight = "none", asymmetric = { gamma_neg = 2 } }
patience = 1
[bundle]
name = "hub"
base = "nothing"
"""
