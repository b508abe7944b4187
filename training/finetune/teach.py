"""The teacher's two stages: `train-teacher` tunes it on GoEmotions and the corpora, `teach` saves what it says once."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn

from training.config import ConfigError, Places, TrainingConfig
from training.data.clean import text_key
from training.data.prepare import GOEMOTIONS, RUSSIAN
from training.data.rows import Row, write_rows
from training.evaluation.saved_logits import Scored
from training.finetune.answers import TAUGHT_ROWS, Answers, answer_keys, known_answers, read_taught_rows
from training.finetune.ask import ask, validation_scorer
from training.finetune.checkpoints import checkpoint_folder
from training.finetune.domain_shift import find_shift, is_goemotions, read_shift, write_shift
from training.finetune.encoding import encode, load_tokenizer
from training.finetune.loss import label_loss
from training.finetune.prepared import Split, goemotions_weights, read_split, repeats_of, scored_splits, training_batches
from training.finetune.teacher import HEAD_FILE, Teacher, encoder_folder, load_teacher, save_teacher
from training.finetune.trainer import Batch, Task, seed_everything, train
from training.finetune.variations import VARIED, vary
from training.thresholds.choose import read_thresholds
from worker.core.scoring import probabilities_from_logits

HEAD = ("head.",)


def tune_teacher(config: TrainingConfig, *, start: Path, prepared: Path, output: Path) -> dict[str, Any]:
    """Fine-tune the teacher in `start`, its embeddings and lowest layers frozen; write it to `output`, in the same format.

    Of GoEmotions it sees a replay sample, so that it keeps what it knows while it learns the corpora.
    """
    optimiser = config.teacher.tune
    if optimiser is None:
        raise ConfigError("nothing to tune: the configuration has no [teacher.tune] table")
    seed_everything(config.seed)
    teacher = load_teacher(start, attention_dropout=config.teacher.attention_dropout)
    _freeze(teacher, layers=config.teacher.frozen_layers)
    tokenizer = load_tokenizer(str(encoder_folder(start)), max_tokens=config.model.max_tokens)
    pad_id = teacher.encoder.config.pad_token_id
    train_split = read_split(prepared, "train")
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
        return label_loss(logits, batch["labels"], pos_weight=weights, config=config.teacher.loss)

    score_of = validation_scorer(tokenizer, prepared, pad_id=pad_id)
    task = Task(teacher, batches, loss_of, score_of, HEAD)
    log = train(task, optimiser, output=output / "checkpoints", seed=config.seed)
    save_teacher(teacher, output / "teacher", tokenizer=tokenizer)
    (output / "log.json").write_text(json.dumps(log, indent=1) + "\n", "utf-8")
    return {"rows": len(replayed.rows), "log": [each for each in log if "eval_macro_f1" in each]}


def teach(config: TrainingConfig, places: Places, *, tuned_folder: Path | None, prepared: Path, output: Path) -> dict[str, Any]:
    """Save the teacher's answers to every training text and to variations of the corpora's, once, beside those rows.

    Where a teacher `for_goemotions` is named, it answers those rows: one that was not tuned on corpora knows them better.
    """
    rows = read_split(prepared, "train").rows
    rows = rows + _variations(rows, config, places, prepared=prepared)
    is_base = is_goemotions(rows)
    everything = np.arange(len(rows))
    teacher_folder = tuned_folder or checkpoint_folder(places.resolve(config.teacher.folder), setting="teacher.folder")
    parts = [(teacher_folder, everything)]
    if config.teacher.for_goemotions:
        base_folder = checkpoint_folder(places.resolve(config.teacher.for_goemotions), setting="teacher.for_goemotions")
        parts = [(base_folder, everything[is_base]), (teacher_folder, everything[~is_base])]
    if len({_width(folder) for folder, _ in parts}) > 1:
        raise ConfigError("teacher.folder and teacher.for_goemotions differ in hidden size; name two teachers of the same size")
    reuse = [Path(places.resolve(folder)) for folder in config.teacher.reuse]
    if config.teacher.align_to:
        thresholds = _thresholds(Path(places.resolve(config.teacher.align_to)))
        tuning = _ask_tuning(teacher_folder, config, prepared=prepared)
        write_shift(find_shift(tuning, thresholds, max_false_alarms=config.teacher.max_false_alarms), output)
    answered = [_answer(folder, [rows[index].text for index in which], config, reuse=reuse) for folder, which in parts]
    order = np.argsort(np.concatenate([which for _, which in parts]))
    logits = np.concatenate([each.logits for each in answered])[order]
    answers = Answers(
        (logits + read_shift(output, rows)).astype(np.float16),
        np.concatenate([each.vectors for each in answered])[order],
        np.concatenate([each.keys for each in answered])[order],
    )
    answers.write(output)
    write_rows(output / TAUGHT_ROWS, rows)
    return {"rows": len(rows), "width": int(answers.vectors.shape[1])}


def _width(teacher_folder: Path) -> int:
    """Return the width of a teacher's vectors, from its head."""
    if not (teacher_folder / HEAD_FILE).exists():
        raise ConfigError(
            f"{teacher_folder} has no {HEAD_FILE}, so it can't label yet; add [teacher.tune], or name a tuned teacher"
        )
    return int(load_file(teacher_folder / HEAD_FILE)["weight"].shape[1])


def _thresholds(folder: Path) -> npt.NDArray[np.float64]:
    try:
        return read_thresholds(folder)
    except OSError as error:
        raise ConfigError(
            f"teacher.align_to: {folder} has no thresholds; run `python -m training thresholds` with that run's --config first"
        ) from error


def _ask_tuning(folder: Path, config: TrainingConfig, *, prepared: Path) -> Scored:
    """Return what the teacher says of the corpora's tuning parts."""
    splits = [read_split(prepared, name) for name in scored_splits(prepared) if name.endswith("_tuning")]
    if not splits:
        raise ConfigError("teacher.align_to needs a corpus with tuning rows in [[data.corpora]]; name one or take it out")
    answers = _answer(folder, [text for split in splits for text in split.texts], config, reuse=[])
    return Scored(probabilities_from_logits(answers.logits), np.concatenate([split.labels for split in splits]))


def _variations(rows: list[Row], config: TrainingConfig, places: Places, *, prepared: Path) -> list[Row]:
    """Return unlabelled texts: made of the corpora's rows, of some of GoEmotions' Russian ones, and those of earlier runs."""
    unseen = [text for name in scored_splits(prepared) for text in read_split(prepared, name).texts]
    unseen += config.data.reserved_texts
    own = [row for row in rows if row.source not in GOEMOTIONS]
    base = [row for row in rows if row.source == RUSSIAN]
    drawn = random.Random(config.seed).sample(base, min(config.teacher.goemotions_variations, len(base)))  # noqa: S311
    varied = vary(own, count=config.teacher.variations, seed=config.seed, unseen=unseen)
    varied += vary(drawn, count=1, seed=config.seed, unseen=unseen)
    taken = {text_key(text) for text in unseen} | {text_key(row.text) for row in varied}
    for folder in config.teacher.reuse:
        earlier = [row for row in read_taught_rows(Path(places.resolve(folder))) if row.source == RUSSIAN + VARIED]
        new = [row for row in earlier if text_key(row.text) not in taken]
        taken |= {text_key(row.text) for row in new}
        varied += new
    return varied


def _answer(folder: Path, texts: list[str], config: TrainingConfig, *, reuse: list[Path]) -> Answers:
    """Ask the teacher in `folder` what earlier runs did not ask it."""
    teacher = load_teacher(folder).to(_device())
    tokenizer = load_tokenizer(str(encoder_folder(folder)), max_tokens=config.model.max_tokens)
    keys = answer_keys(folder, texts)
    known = known_answers(keys, reuse)
    logits = np.empty((len(texts), teacher.head.out_features), np.float16)
    vectors = np.empty((len(texts), teacher.head.in_features), np.float16)
    for index, (earlier, row) in known.items():
        logits[index], vectors[index] = earlier.logits[row], earlier.vectors[row]
    asked = [index for index in range(len(texts)) if index not in known]
    if asked:
        fresh = ask(
            teacher,
            encode(tokenizer, [texts[index] for index in asked]),
            pad_id=teacher.encoder.config.pad_token_id,
            batch_size=config.teacher.batch_size,
            progress="teach",
        )
        logits[asked], vectors[asked] = fresh["logits"], fresh["vectors"]
    return Answers(logits, vectors, keys)


def _freeze(teacher: Teacher, *, layers: int) -> None:
    """Freeze the embeddings and the lowest layers: what they know of Russian, few examples can only spoil.

    BERT, RoBERTa, XLM-RoBERTa and their kin name both alike; where another kind has no such names, `ConfigError`.
    """
    try:
        frozen = [teacher.encoder.embeddings, *teacher.encoder.encoder.layer[:layers]]
    except AttributeError as error:
        kind = type(teacher.encoder).__name__
        raise ConfigError(
            f"can't tell the layers of a {kind}; let teacher.folder name a BERT, RoBERTa or XLM-RoBERTa"
        ) from error
    for module in frozen:
        module.requires_grad_(False)


def _replay(split: Split, *, rows: int | None, seed: int) -> Split:
    is_base = np.array([row.source in GOEMOTIONS for row in split.rows])
    base = np.flatnonzero(is_base)
    if rows is not None and rows < len(base):
        base = np.random.default_rng(seed).choice(base, rows, replace=False)
    kept = np.sort(np.concatenate([base, np.flatnonzero(~is_base)]))
    return Split([split.rows[index] for index in kept], split.labels[kept])


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
