"""The stage `train` of the recipe `finetune`: a checkpoint fine-tuned on the labels alone, with early stopping."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.config import Places, TrainingConfig
from training.finetune.ask import validation_scorer
from training.finetune.loss import label_loss
from training.finetune.prepared import goemotions_weights, read_split, repeats_of, training_batches
from training.finetune.student import build_model
from training.finetune.trainer import Batch, Task, save_trained, seed_everything, train

HEAD = ("classifier.",)


def finetune(config: TrainingConfig, places: Places, *, prepared: Path, output: Path) -> dict[str, Any]:
    """Fine-tune on every training row; write the best epoch's model and its tokenizer to `output`/model."""
    seed_everything(config.seed)
    train_split = read_split(prepared, "train")
    model, tokenizer = build_model(config.model, places, texts=train_split.texts)
    pad_id: int = model.config.pad_token_id
    batches = training_batches(
        train_split,
        {"labels": train_split.labels},
        tokenizer=tokenizer,
        pad_id=pad_id,
        batch_size=config.train.optimiser.batch_size,
        seed=config.seed,
        repeats=repeats_of(train_split.rows, {each.name: each.repeat for each in config.data.corpora}),
        noise_share=config.train.noise.share,
    )
    pos_weight = torch.from_numpy(goemotions_weights(train_split, config.train.loss))

    def loss_of(model: nn.Module, batch: Batch, _progress: float) -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        weights = pos_weight.to(logits.device)
        return label_loss(logits, batch["labels"], pos_weight=weights, config=config.train.loss)

    score_of = validation_scorer(tokenizer, prepared, pad_id=pad_id)
    log = train(
        Task(model, batches, loss_of, score_of, HEAD),
        config.train.optimiser,
        output=output / "checkpoints",
        seed=config.seed,
        patience=config.train.patience,
    )
    save_trained(model, tokenizer, output / "model")
    (output / "log.json").write_text(json.dumps(log, indent=1) + "\n", "utf-8")
    return {"rows": len(train_split.rows), "validation": {"best": score_of(model)}}
