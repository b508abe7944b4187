"""A whole run on a model and corpora small enough for seconds: every stage, then the bundle in the worker's own hands."""

import csv
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from training.__main__ import app
from training.config import ConfigError
from training.export.onnx_export import load_for_export
from training.finetune.answers import answer_keys, known_answers, read_answers
from training.finetune.encoding import pad
from training.finetune.teacher import Teacher, load_teacher, save_teacher
from worker.core.failures import ModelBundleError
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import probabilities_from_logits
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier

WORDS = "мама мыла раму спасибо ужас курьер деньги верните где заказ люблю вас кошмар помогите привет рада опять ждать".split()


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


def _write_models(folder: Path) -> None:
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
    save_teacher(teacher, folder / "teacher", tokenizer_json=folder / "donor" / "tokenizer.json")


def _write_corpora(folder: Path) -> None:
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


CONFIG = """
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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    _write_models(root / "models")
    _write_corpora(root / "data")
    (root / "tiny.toml").write_text(CONFIG, "utf-8")
    (root / "plain.toml").write_text(PLAIN_CONFIG, "utf-8")
    return root


def _run(root: Path, *words: str, config: str = "tiny") -> str:
    places = ["--data-dir", root / "data", "--models-dir", root / "models", "--runs-dir", root / "runs"]
    places += ["--bundles-dir", root / "bundles"]
    result = CliRunner().invoke(
        app, [*words, "--config", str(root / f"{config}.toml"), *map(str, places)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def finished(folders: Path) -> Path:
    _run(folders, "all")
    return folders / "runs" / "tiny"


def test_a_distilled_run_leaves_a_student_with_all_labels(finished: Path) -> None:
    config = json.loads((finished / "train" / "model" / "config.json").read_text("utf-8"))
    assert tuple(config["id2label"].values()) == GOEMOTIONS_LABELS
    assert config["max_position_embeddings"] == 48


def test_stages_whose_output_holds_are_skipped(finished: Path, folders: Path) -> None:
    lines = _run(folders, "all").splitlines()
    assert lines
    assert all(": unchanged" in line for line in lines)


def test_the_bundle_loads_and_gives_torch_s_logits(finished: Path, folders: Path) -> None:
    bundle = load_model_bundle(folders / "bundles" / "tiny")
    classifier = OnnxClassifier(bundle, threads=1)
    texts = ["спасибо мама", "ужас верните деньги опять"]
    tokenized = classifier.tokenize(texts)
    by_onnx = probabilities_from_logits(classifier.logits(tokenized))
    model = load_for_export(finished / "train" / "model")
    feeds = pad([each.token_ids for each in tokenized], pad_id=1)
    with torch.no_grad():
        by_torch = probabilities_from_logits(model(**feeds).logits.numpy())
    assert np.abs(by_onnx - by_torch).max() < 0.01


def test_the_manifest_names_every_corpus_and_the_thresholds_of_the_run(finished: Path, folders: Path) -> None:
    manifest = load_model_bundle(folders / "bundles" / "tiny").manifest
    chosen = json.loads((finished / "thresholds" / "thresholds.json").read_text("utf-8"))
    assert manifest.thresholds == chosen["thresholds"]
    assert [(each["name"], each["training_rows"]) for each in manifest.data] == [("support", 10)]


def test_an_altered_bundle_is_refused(finished: Path, folders: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders / "bundles" / "tiny", copy)
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelBundleError, match="altered"):
        load_model_bundle(copy)


def test_the_card_shows_scores_examples_and_limits(finished: Path, folders: Path) -> None:
    card = (folders / "bundles" / "tiny" / "README.md").read_text("utf-8")
    for expected in ("# tiny", "macro-F1", "мама мыла раму", "Intended use and limits", "support_reporting"):
        assert expected in card


def test_exports_by_blocks_do_not_depend_on_the_batch(finished: Path, folders: Path) -> None:
    del finished
    _run(folders, "all")
    parity = json.loads((folders / "runs" / "tiny" / "export" / "parity.json").read_text("utf-8"))
    assert parity["batch_dependence"] <= 0.001
    assert parity["cell_agreement"] >= 0.99


def test_every_way_to_export_is_compared(finished: Path, folders: Path) -> None:
    del finished
    words = ["compare-exports", "--config", str(folders / "tiny.toml"), "--runs-dir", str(folders / "runs"), "--threads", "1"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    for way in ("float32", "dynamic", "static", "block32", "block64"):
        assert f"| {way} | " in result.output


def test_tuning_a_teacher_leaves_its_word_embeddings_as_they_were(finished: Path, folders: Path) -> None:
    before = load_teacher(folders / "models" / "teacher").encoder.embeddings.word_embeddings.weight
    tuned = load_teacher(finished / "train-teacher" / "teacher")
    assert torch.equal(before, tuned.encoder.embeddings.word_embeddings.weight)
    assert not torch.equal(tuned.head.weight, load_teacher(folders / "models" / "teacher").head.weight)


def test_a_teacher_is_not_asked_twice(finished: Path, folders: Path) -> None:
    keys = read_answers(finished / "teach").keys
    assert len(known_answers(keys, [finished / "teach"])) == len(keys)
    assert not set(keys.tolist()) & set(answer_keys(folders / "models" / "teacher", ["мама"]).tolist())


def test_plain_fine_tuning_starts_from_any_checkpoint(folders: Path) -> None:
    for stage in ("prepare", "train", "predict"):
        _run(folders, stage, config="plain")
    with np.load(folders / "runs" / "plain" / "predict" / "test.npz") as saved:
        assert saved["logits"].shape == saved["labels"].shape == (56, 28)


def test_a_stage_before_its_turn_says_what_to_run(folders: Path) -> None:
    (folders / "early.toml").write_text(PLAIN_CONFIG.replace('run = "plain"', 'run = "early"'), "utf-8")
    with pytest.raises(ConfigError, match="python -m training predict"):
        _run(folders, "thresholds", config="early")
