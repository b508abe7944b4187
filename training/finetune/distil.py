"""The stage `distill`: the small student learns the labels, the teacher's probabilities and the teacher's vectors.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; the vectors after Romero et al. 2015, "FitNets".
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertForSequenceClassification

from training.config import ConfigError, LossConfig, Places, TrainingConfig
from training.data.rows import multi_hot
from training.finetune.answers import read_answers, read_taught_rows
from training.finetune.ask import validation_scorer
from training.finetune.averaging import AverageLastSteps
from training.finetune.domain_shift import read_shift
from training.finetune.loss import DistilTargets, distil_loss
from training.finetune.prepared import Split, goemotions_weights, repeats_of, training_batches
from training.finetune.student import build_student
from training.finetune.trainer import Batch, Task, save_trained, seed_everything, train
from worker.core.scoring import probabilities_from_logits

HEAD = ("projection.",)


class DistilledStudent(nn.Module):
    """The student and the projection of its pooled output to the teacher's width, which only training needs."""

    def __init__(self, student: BertForSequenceClassification, *, teacher_width: int) -> None:
        super().__init__()
        self.student = student
        self.projection = nn.Linear(student.config.hidden_size, teacher_width)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = self.student.bert(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        logits = self.student.classifier(self.student.dropout(pooled))
        return {"logits": logits, "projected": self.projection(pooled)}


def distil(config: TrainingConfig, places: Places, *, prepared: Path, taught: Path, output: Path) -> dict[str, Any]:
    """Train the student on every training row; write it and its tokenizer to `output`/model.

    Where weights are averaged, the better of the last and the averaged ones by validation macro-F1 is kept.
    """
    seed_everything(config.seed)
    train_split = read_taught(taught)
    targets = _targets(train_split, taught, loss=config.train.loss)
    bare, tokenizer = build_student(config.model, places, texts=train_split.texts)
    student = DistilledStudent(bare, teacher_width=targets["vectors"].shape[1])
    pad_id = student.student.config.pad_token_id
    optimiser = config.train.optimiser
    batches = training_batches(
        train_split,
        targets,
        tokenizer=tokenizer,
        pad_id=pad_id,
        batch_size=optimiser.batch_size,
        seed=config.seed,
        repeats=repeats_of(train_split.rows, {each.name: each.repeat for each in config.data.corpora}),
        noise_share=config.train.noise.share,
    )

    def loss_of(model: nn.Module, batch: Batch, progress: float) -> torch.Tensor:
        answers = model(batch["input_ids"], batch["attention_mask"])
        taught = DistilTargets(**{field.name: batch[field.name] for field in fields(DistilTargets)})
        return distil_loss(
            answers["logits"], answers["projected"], targets=taught, progress=progress, config=config.train.distil
        )

    score_of = validation_scorer(tokenizer, prepared, pad_id=pad_id)
    average = AverageLastSteps(student, share=config.train.distil.average_last)
    log = train(
        Task(student, batches, loss_of, score_of, HEAD),
        optimiser,
        output=output / "checkpoints",
        seed=config.seed,
        callbacks=(average,),
    )
    scores = {"last": score_of(student)}
    if average.averaged is not None:
        last = {name: value.detach().clone() for name, value in student.state_dict().items()}
        student.load_state_dict(average.averaged)
        scores["averaged"] = score_of(student)
        if scores["averaged"]["macro_f1"] < scores["last"]["macro_f1"]:
            student.load_state_dict(last)
    save_trained(student.student, tokenizer, output / "model")
    (output / "log.json").write_text(json.dumps(log, indent=1) + "\n", "utf-8")
    return {"rows": len(train_split.rows), "validation": scores}


def read_taught(taught: Path) -> Split:
    """Read the rows that the teacher answered; those it was given without labels have none."""
    rows = read_taught_rows(taught)
    return Split(rows, multi_hot(rows))


def _targets(split: Split, taught: Path, *, loss: LossConfig) -> dict[str, np.ndarray[Any, Any]]:
    """Return what `DistilTargets` holds, a row each.

    Where the teacher's logits of a domain were shifted, its positives weigh exp(shift) as much, which moves the labels'
    own optimum by the same.
    """
    answers = read_answers(taught)
    if len(answers.logits) != len(split.rows):
        raise ConfigError(f"{taught} answers {len(answers.logits)} rows, train has {len(split.rows)}; run `teach` again")
    vectors = answers.vectors.astype(np.float32)
    standardised = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    return {
        "labels": split.labels,
        "is_labelled": split.labels.any(1).astype(np.float32),
        "pos_weight": (goemotions_weights(split, loss) * np.exp(read_shift(taught, split.rows))).astype(np.float32),
        "probabilities": probabilities_from_logits(answers.logits).astype(np.float32),
        "vectors": standardised.astype(np.float16),
    }
