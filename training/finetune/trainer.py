"""The Hugging Face Trainer as every training here uses it: own loss, own batches, own optimiser groups, own score."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from training.config import OptimiserConfig
from training.finetune.encoding import TrainingBatches

Batch = dict[str, torch.Tensor]
LossOf = Callable[[nn.Module, Batch, float], torch.Tensor]
ScoreOf = Callable[[nn.Module], dict[str, float]]
SCORE_NAME = "eval_macro_f1"


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained and how it is judged.

    `loss_of` takes the model, a batch and the progress 0..1; `score_of` returns at least `macro_f1` on validation;
    parameters whose names begin with one of `head_names` take the head's learning rate.
    """

    model: nn.Module
    batches: TrainingBatches
    loss_of: LossOf
    score_of: ScoreOf
    head_names: tuple[str, ...]


def train(
    task: Task,
    config: OptimiserConfig,
    *,
    output: Path,
    seed: int,
    patience: int | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> list[dict[str, Any]]:
    """Train the task's model in place; return the log.

    Goes on from the last whole checkpoint in `output`. With `patience` it stops early and ends with the best epoch's weights;
    without, it ends with the last step's.
    """
    if patience is not None:
        callbacks = (*callbacks, EarlyStoppingCallback(early_stopping_patience=patience))
    arguments = _arguments(config, output=output, seed=seed, keep_best=patience is not None)
    trainer = EmotionTrainer(task, config, args=arguments, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=_last_checkpoint(output))
    return list(trainer.state.log_history)


def _last_checkpoint(folder: Path) -> str | None:
    """Return the last checkpoint; one that a stop cut short lacks its state, which is written last, and is removed."""
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (checkpoint / TRAINER_STATE_NAME).exists():
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(str(folder)) if folder.exists() else None


class EmotionTrainer(Trainer):
    """A Trainer that leaves batches, loss and score to its task."""

    def __init__(self, task: Task, config: OptimiserConfig, **kwargs: Any) -> None:
        rows = task.batches.dataset
        super().__init__(model=task.model, train_dataset=rows, eval_dataset=rows, **kwargs)
        self.model_accepts_loss_kwargs = False
        self._task = task
        self._config = config

    def get_train_dataloader(self) -> TrainingBatches:
        return self._task.batches

    def compute_loss(self, model: nn.Module, inputs: Batch, return_outputs: bool = False, **_: Any) -> Any:
        progress = self.state.global_step / max(1, self.state.max_steps)
        loss = self._task.loss_of(model, inputs, progress)
        return (loss, {}) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self.model.eval()
        scores = {f"eval_{name}": value for name, value in self._task.score_of(self.model).items()}
        self.model.train()
        self.log(scores)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        groups = parameter_groups(model or self.model, self._config, head_names=self._task.head_names)
        self.optimizer = torch.optim.AdamW(groups, lr=self._config.learning_rate, fused=True)
        return self.optimizer


def parameter_groups(model: nn.Module, config: OptimiserConfig, *, head_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the trainable parameters by learning rate and weight decay (none on embeddings, norms and biases)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "embeddings" not in name
            groups.setdefault((name.startswith(head_names), decays), []).append(parameter)
    head_rate = config.head_learning_rate or config.learning_rate
    return [
        {
            "params": parameters,
            "lr": head_rate if is_head else config.learning_rate,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in groups.items()
    ]


def has_fast_bf16() -> bool:
    """Whether bfloat16 is faster than float32 here: on recent GPUs, and on CPUs with AMX.

    A CPU with AVX512-BF16 alone has it too, but its float32 matrix products were measured to be twice as fast.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_amx_tile_supported())


def seed_everything(seed: int) -> None:
    """Seed torch, on every device, and numpy's global generator, which Transformers uses."""
    torch.manual_seed(seed)
    np.random.seed(seed)


def save_trained(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a model as safetensors and its tokenizer.json, without the truncation that training set."""
    model.save_pretrained(folder)
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))


def _arguments(config: OptimiserConfig, *, output: Path, seed: int, keep_best: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup,
        lr_scheduler_type="linear" if config.decay == "linear" else "constant_with_warmup",
        max_grad_norm=config.clip,
        bf16=has_fast_bf16(),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=keep_best,
        metric_for_best_model=SCORE_NAME,
        greater_is_better=True,
        logging_steps=50,
        report_to=[],
        seed=seed,
        remove_unused_columns=False,
    )
