"""The teacher's two stages: `train-teacher` tunes it on GoEmotions and the corpora, `teach` saves what it says once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.config import ConfigError, TrainingConfig
from training.data.prepare import GOEMOTIONS
from training.finetune.ask import ask, validation_scorer
from training.finetune.encoding import encode, load_tokenizer
from training.finetune.loss import label_loss
from training.finetune.prepared import Split, goemotions_weights, read_split, repeats_of, training_batches
from training.finetune.teacher import encoder_folder, load_teacher, save_teacher
from training.finetune.trainer import Batch, Task, seed_everything, train

HEAD = ("head.",)


def tune_teacher(config: TrainingConfig, *, start: Path, prepared: Path, output: Path) -> dict[str, Any]:
    """Fine-tune the teacher in `start`, its word embeddings frozen; write it to `output`, in the same format.

    Of GoEmotions it sees a replay sample, so that it keeps what it knows while it learns the corpora.
    """
    optimiser = config.teacher.tune
    if optimiser is None:
        raise ConfigError("nothing to tune: the configuration has no [teacher.tune] table")
    seed_everything(config.seed)
    teacher = load_teacher(start)
    teacher.encoder.embeddings.word_embeddings.weight.requires_grad = False
    tokenizer = load_tokenizer(str(encoder_folder(start)), max_tokens=config.model.max_tokens)
    pad_id = teacher.encoder.config.pad_token_id
    train_split = read_split(prepared, "train")
    validation = read_split(prepared, "validation")
    pos_weight = torch.from_numpy(goemotions_weights(train_split, config.teacher.loss))
    replayed = _replay(train_split, rows=config.teacher.replay_rows, seed=config.seed)
    batches = training_batches(
        replayed,
        {"labels": replayed.labels},
        tokenizer=tokenizer,
        pad_id=pad_id,
        batch_size=optimiser.batch_size,
        seed=config.seed,
        repeats=repeats_of(replayed.rows, {each.name: each.teacher_repeat for each in config.data.corpora}),
        noise_share=config.train.noise.share,
    )

    def loss_of(model: nn.Module, batch: Batch, _progress: float) -> torch.Tensor:
        logits = model(batch["input_ids"], batch["attention_mask"])["logits"]
        weights = pos_weight.to(logits.device)
        return label_loss(logits, batch["labels"], pos_weight=weights, focal_gamma=config.teacher.loss.focal_gamma)

    score_of = validation_scorer(encode(tokenizer, validation.texts), validation.labels, pad_id=pad_id)
    task = Task(teacher, batches, loss_of, score_of, HEAD)
    log = train(task, optimiser, output=output / "checkpoints", seed=config.seed)
    save_teacher(teacher, output / "teacher", tokenizer_json=encoder_folder(start) / "tokenizer.json")
    (output / "log.json").write_text(json.dumps(log, indent=1) + "\n", "utf-8")
    return {"rows": len(replayed.rows), "log": [each for each in log if "eval_macro_f1" in each]}


def teach(config: TrainingConfig, *, teacher_folder: Path, prepared: Path, output: Path) -> dict[str, Any]:
    """Save the teacher's logits [rows, 28] and pooled vectors [rows, width] of every training text, as float16 .npy."""
    teacher = load_teacher(teacher_folder).to(_device())
    tokenizer = load_tokenizer(str(encoder_folder(teacher_folder)), max_tokens=config.model.max_tokens)
    texts = read_split(prepared, "train").texts
    answers = ask(
        teacher,
        encode(tokenizer, texts),
        pad_id=teacher.encoder.config.pad_token_id,
        batch_size=config.teacher.batch_size,
        progress="teach",
    )
    np.save(output / "logits.npy", answers["logits"].astype(np.float16), allow_pickle=False)
    np.save(output / "vectors.npy", answers["vectors"].astype(np.float16), allow_pickle=False)
    return {"rows": len(texts), "width": int(answers["vectors"].shape[1])}


def _replay(split: Split, *, rows: int | None, seed: int) -> Split:
    is_base = np.array([row.source in GOEMOTIONS for row in split.rows])
    base = np.flatnonzero(is_base)
    if rows is not None and rows < len(base):
        base = np.random.default_rng(seed).choice(base, rows, replace=False)
    kept = np.sort(np.concatenate([base, np.flatnonzero(~is_base)]))
    return Split([split.rows[index] for index in kept], split.labels[kept])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
