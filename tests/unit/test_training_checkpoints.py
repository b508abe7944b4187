import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from training.config import ConfigError, ModelConfig, Places, TrainingConfig
from training.data.rows import Row, read_rows, write_rows
from training.finetune.checkpoints import checkpoint_folder
from training.finetune.encoding import encode, load_tokenizer, pad
from training.finetune.student import build_student, read_embeddings, reduce_embeddings
from training.finetune.teach import teach, tune_teacher
from training.finetune.teacher import load_teacher, save_teacher
from worker.core.labels import GOEMOTIONS_LABELS

WORDS = ("где", "мой", "заказ", "верните", "деньги", "спасибо")
STUDENT = {"hidden_size": 12, "layers": 1, "heads": 2, "intermediate_size": 16, "max_positions": 48, "max_tokens": 16}
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Folders whose models are `bert`, a BertModel, and `xlm-roberta`, saved with its language model's head."""
    torch.manual_seed(0)
    pieces = [(piece, 0.0) for piece in ("<s>", "<pad>", "</s>", "<unk>", "▁")] + [(f"▁{word}", -1.0) for word in WORDS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    size = tokenizer.get_vocab_size()
    bert = BertModel(BertConfig(vocab_size=size, max_position_embeddings=40, pad_token_id=0, **SIZES), add_pooling_layer=False)
    config = XLMRobertaConfig(vocab_size=size + 7, max_position_embeddings=42, type_vocab_size=1, pad_token_id=1, **SIZES)
    for name, model in (("bert", bert), ("xlm-roberta", XLMRobertaForMaskedLM(config))):
        model.save_pretrained(tmp_path / "models" / name)
        tokenizer.save(str(tmp_path / "models" / name / "tokenizer.json"))
    return Places(data=tmp_path / "data", models=tmp_path / "models", runs=tmp_path / "runs")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_a_folder_is_taken_as_it_is(places: Places) -> None:
    assert checkpoint_folder(str(places.models / "bert"), setting="model.start_from") == places.models / "bert"


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["intfloat/no-such-model", "/no/such/folder", "{models}/nothing"])
def test_a_name_that_neither_disk_nor_hub_knows_says_which_setting_to_mend(places: Places, name: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.embeddings_from .* or go online"):
        build_student(ModelConfig(embeddings_from=name), places, texts=[])
    with pytest.raises(ConfigError, match=r"model\.start_from .* or go online"):
        build_student(ModelConfig(start_from=name), places, texts=[])


def test_weights_that_would_have_to_be_unpickled_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"teacher\.folder .* no weights in safetensors"):
        checkpoint_folder(str(tmp_path), setting="teacher.folder")


def test_embeddings_are_the_same_whatever_their_checkpoint_s_names_begin_with(places: Places, tmp_path: Path) -> None:
    bert = BertModel.from_pretrained(places.models / "bert", add_pooling_layer=False)
    whole = BertForPreTraining(bert.config)
    whole.bert.embeddings.load_state_dict(bert.embeddings.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    assert "bert.embeddings.word_embeddings.weight" in load_file(tmp_path / "whole" / "model.safetensors")
    plain, prefixed = read_embeddings(places.models / "bert"), read_embeddings(tmp_path / "whole")
    assert torch.equal(plain.words, bert.embeddings.word_embeddings.weight)
    for name in ("words", "positions", "token_types"):
        assert torch.equal(getattr(plain, name), getattr(prefixed, name))


def test_a_roberta_s_positions_are_taken_from_its_first_text_position(places: Places) -> None:
    table = XLMRobertaForMaskedLM.from_pretrained(places.models / "xlm-roberta").roberta.embeddings.position_embeddings.weight
    donor = read_embeddings(places.models / "xlm-roberta")
    assert torch.equal(donor.positions, table[2:])
    student, _ = build_student(ModelConfig(embeddings_from="{models}/xlm-roberta", **STUDENT), places, texts=[])
    reduced = reduce_embeddings(donor, width=12, std=0.05)
    assert torch.equal(student.bert.embeddings.position_embeddings.weight[:40], reduced.positions)
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, reduced.words)


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_the_student_pads_with_its_tokenizer_s_padding(places: Places, name: str) -> None:
    student, tokenizer = build_student(ModelConfig(embeddings_from=f"{{models}}/{name}", **STUDENT), places, texts=[])
    assert student.config.pad_token_id == tokenizer.token_to_id("<pad>") == 1
    feeds = pad(encode(tokenizer, ["где мой заказ", "спасибо"]), pad_id=1)
    assert student.eval()(**feeds).logits.shape == (2, 28)


def test_a_student_may_go_on_from_a_bert_but_from_no_other_kind(places: Places) -> None:
    student, _ = build_student(ModelConfig(start_from="{models}/bert"), places, texts=[])
    assert student.config.num_labels == 28
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, read_embeddings(places.models / "bert").words)
    with pytest.raises(ConfigError, match="'xlm-roberta'; a student is a BERT"):
        build_student(ModelConfig(start_from="{models}/xlm-roberta"), places, texts=[])


def test_a_checkpoint_without_all_its_weights_is_refused(places: Places) -> None:
    path = places.models / "bert" / "model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if "position" not in name}, path, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks weights .*position_embeddings"):
        read_embeddings(places.models / "bert")


def test_an_encoder_without_positions_is_refused_as_a_donor(tmp_path: Path) -> None:
    DistilBertModel(DistilBertConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2, hidden_dim=8)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="token types; name a BERT, RoBERTa or XLM-RoBERTa"):
        read_embeddings(tmp_path)


def _teaching(folder: str, *, frozen: int, tune: bool = True, **teacher: Any) -> TrainingConfig:
    tuning = {"tune": {"epochs": 1, "learning_rate": 0.05, "batch_size": 16}} if tune else {}
    return TrainingConfig.model_validate(
        {
            "run": "r",
            "model": {"embeddings_from": folder, "max_tokens": 16},
            "teacher": {"folder": folder, "frozen_layers": frozen, **tuning, **teacher},
            "train": {"recipe": "distil", "optimiser": {"epochs": 1, "learning_rate": 1e-3}},
            "bundle": {"base": "nothing"},
        }
    )


def _write_rows(folder: Path) -> None:
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [Row(f"{WORDS[n % 6]} {WORDS[n % 5]}", (label,), "goemotions_ru") for n, label in enumerate(GOEMOTIONS_LABELS)]
        write_rows(folder / f"{split}.jsonl", rows)


def test_an_xlm_roberta_becomes_a_teacher_like_any_bert(places: Places, tmp_path: Path) -> None:
    _write_rows(tmp_path / "prepared")
    (tmp_path / "out").mkdir()
    config = _teaching("{models}/xlm-roberta", frozen=1)
    tune_teacher(config, start=places.models / "xlm-roberta", prepared=tmp_path / "prepared", output=tmp_path / "out")
    before, after = load_teacher(places.models / "xlm-roberta"), load_teacher(tmp_path / "out" / "teacher")
    start, tuned = before.encoder.half().float().state_dict(), after.encoder.state_dict()
    changed = {name for name in start if not torch.equal(start[name], tuned[name])}
    assert changed
    assert all(name.startswith("encoder.layer.1.") for name in changed)
    taught = tmp_path / "taught"
    taught.mkdir()
    card = teach(config, places, tuned_folder=tmp_path / "out" / "teacher", prepared=tmp_path / "prepared", output=taught)
    assert card == {"rows": 28, "width": 24}


def test_a_checkpoint_cut_short_is_passed_over_for_the_last_whole_one(places: Places, tmp_path: Path) -> None:
    _write_rows(tmp_path / "prepared")
    (tmp_path / "out").mkdir()
    folders = {"start": places.models / "xlm-roberta", "prepared": tmp_path / "prepared", "output": tmp_path / "out"}
    checkpoints = tmp_path / "out" / "checkpoints"
    tune_teacher(_teaching("{models}/xlm-roberta", frozen=1), **folders)
    finished = load_teacher(tmp_path / "out" / "teacher").head.weight
    (checkpoints / "checkpoint-9").mkdir()
    shutil.copy(checkpoints / "checkpoint-2" / "model.safetensors", checkpoints / "checkpoint-9")
    tune_teacher(_teaching("{models}/xlm-roberta", frozen=1), **folders)
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-2"]
    assert torch.equal(load_teacher(tmp_path / "out" / "teacher").head.weight, finished)


def test_an_encoder_that_was_never_tuned_does_not_teach(places: Places, tmp_path: Path) -> None:
    _write_rows(tmp_path / "prepared")
    config = _teaching("{models}/xlm-roberta", frozen=0, tune=False)
    with pytest.raises(ConfigError, match=r"teacher\.tune"):
        teach(config, places, tuned_folder=None, prepared=tmp_path / "prepared", output=tmp_path)


def _save_tuned(places: Places, folder: Path, name: str = "xlm-roberta") -> Path:
    """Write an encoder with a head that was never trained, as a tuned teacher lies."""
    source = places.models / name
    save_teacher(load_teacher(source), folder, tokenizer=load_tokenizer(str(source), max_tokens=16))
    return folder


def _teach(places: Places, *, tuned: Path, prepared: Path, output: Path, **teacher: Any) -> list[str]:
    """Teach into a new folder; return the texts that were answered."""
    output.mkdir()
    config = _teaching("{models}/xlm-roberta", frozen=0, **teacher)
    teach(config, places, tuned_folder=tuned, prepared=prepared, output=output)
    return [row.text for row in read_rows(output / "rows.jsonl")]


def test_variations_of_earlier_runs_are_taught_once_each(places: Places, tmp_path: Path) -> None:
    _write_rows(tmp_path / "prepared")
    folders = {"tuned": _save_tuned(places, tmp_path / "tuned"), "prepared": tmp_path / "prepared"}
    plain = _teach(places, output=tmp_path / "plain", **folders)
    varied = _teach(places, output=tmp_path / "first", goemotions_variations=28, **folders)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    reuse = [str(tmp_path / "first"), str(tmp_path / "second")]
    again = _teach(places, output=tmp_path / "third", reuse=reuse, **folders)
    assert sorted(again) == sorted(varied)
    assert len(varied) > len(plain)


@pytest.mark.parametrize(("setting", "stage"), [("reuse", "teach"), ("align_to", "thresholds")])
def test_another_run_s_output_that_is_not_there_says_what_to_run(
    places: Places, tmp_path: Path, setting: str, stage: str
) -> None:
    _write_rows(tmp_path / "prepared")
    tuned, named = _save_tuned(places, tmp_path / "tuned"), str(tmp_path / "none")
    with pytest.raises(ConfigError, match=f"none has no .*; run `python -m training {stage}`"):
        _teach(
            places,
            tuned=tuned,
            prepared=tmp_path / "prepared",
            output=tmp_path / "out",
            **{setting: [named] if setting == "reuse" else named},
        )


def test_teachers_of_two_sizes_are_refused_before_they_are_asked(places: Places, tmp_path: Path) -> None:
    _write_rows(tmp_path / "prepared")
    tuned, other = _save_tuned(places, tmp_path / "tuned"), _save_tuned(places, tmp_path / "other")
    save_file({"weight": torch.zeros(28, 12), "bias": torch.zeros(28)}, other / "head.safetensors")
    with pytest.raises(ConfigError, match="of the same size"):
        _teach(places, tuned=tuned, prepared=tmp_path / "prepared", output=tmp_path / "out", for_goemotions=str(other))
