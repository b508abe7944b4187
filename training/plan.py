"""Which stages there are, in which order, and what each is given."""

from pathlib import Path
from typing import Any

from training.config import TrainingConfig
from training.data.prepare import prepare
from training.evaluation.report import evaluate
from training.stages import Run, Stage
from training.thresholds.choose import choose


def prepared_folder(run: Run) -> Path:
    """Where the prepared splits lie."""
    return run.folder("prepare")


def model_folder(run: Run) -> Path:
    """Where the trained model and its tokenizer lie."""
    return run.folder("train") / "model"


def teacher_folder(run: Run) -> Path:
    """The teacher that teaches: the tuned one where this run tunes it."""
    if run.config.teacher.tune:
        return run.folder("train-teacher") / "teacher"
    return Path(run.places.resolve(run.config.teacher.folder))


def _prepare(run: Run) -> dict[str, Any]:
    card = prepare(run.config.data, run.places, output=run.folder("prepare"))
    return {name: split["rows"] for name, split in card["splits"].items()}


def _train_teacher(run: Run) -> dict[str, Any]:
    from training.finetune.teach import tune_teacher

    start = Path(run.places.resolve(run.config.teacher.folder))
    return tune_teacher(run.config, start=start, prepared=prepared_folder(run), output=run.folder("train-teacher"))


def _teach(run: Run) -> dict[str, Any]:
    from training.finetune.teach import teach

    return teach(run.config, teacher_folder=teacher_folder(run), prepared=prepared_folder(run), output=run.folder("teach"))


def _train(run: Run) -> dict[str, Any]:
    folders = {"prepared": prepared_folder(run), "output": run.folder("train")}
    if run.config.train.recipe == "distil":
        from training.finetune.distil import distil

        return distil(run.config, run.places, taught=run.folder("teach"), **folders)
    from training.finetune.finetune import finetune

    return finetune(run.config, run.places, **folders)


def _predict(run: Run) -> dict[str, Any]:
    from training.finetune.predict import predict

    return predict(
        model_folder=model_folder(run),
        prepared=prepared_folder(run),
        output=run.folder("predict"),
        max_tokens=run.config.model.max_tokens,
    )


def _thresholds(run: Run) -> dict[str, Any]:
    return choose(run.config.thresholds, predicted=run.folder("predict"), output=run.folder("thresholds"), seed=run.config.seed)


def _evaluate(run: Run) -> dict[str, Any]:
    return evaluate(
        predicted=run.folder("predict"),
        chosen=run.folder("thresholds"),
        output=run.folder("evaluate"),
        seed=run.config.seed,
    )


def _is_distilled(config: TrainingConfig) -> bool:
    return config.train.recipe == "distil"


def _model_part(config: TrainingConfig) -> Any:
    return [config.model.model_dump(), config.train.model_dump(), [[each.name, each.repeat] for each in config.data.corpora]]


STAGES = (
    Stage("prepare", lambda config: config.data.model_dump(), lambda _: (), _prepare),
    Stage(
        "train-teacher",
        lambda config: [config.teacher.model_dump(), config.model.max_tokens, config.train.noise.model_dump()],
        lambda _: ("prepare",),
        _train_teacher,
        lambda config: _is_distilled(config) and config.teacher.tune is not None,
    ),
    Stage(
        "teach",
        lambda config: [config.teacher.folder, config.model.max_tokens],
        lambda config: ("prepare", "train-teacher") if config.teacher.tune else ("prepare",),
        _teach,
        _is_distilled,
    ),
    Stage(
        "train",
        _model_part,
        lambda config: ("prepare", "teach") if _is_distilled(config) else ("prepare",),
        _train,
    ),
    Stage("predict", lambda config: config.model.max_tokens, lambda _: ("train",), _predict),
    Stage("thresholds", lambda config: config.thresholds.model_dump(), lambda _: ("predict",), _thresholds),
    Stage("evaluate", lambda _: (), lambda _: ("predict", "thresholds"), _evaluate),
)
