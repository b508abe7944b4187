"""Which stages there are, in which order, and what each is given."""

from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import ConfigError, TrainingConfig
from training.data.download import download
from training.data.prepare import Translated, prepare
from training.evaluation.escalations import DEFAULT_POLICY, read_policy
from training.evaluation.report import Scoreable, evaluate
from training.stages import Run, Stage
from training.thresholds.calibrate import calibrate
from training.thresholds.choose import choose, read_thresholds
from worker.core.escalation import EscalationPolicy

if TYPE_CHECKING:
    from training.export.compare import Trained

_TEACHING = {"folder", "for_goemotions", "variations", "goemotions_variations", "align_to", "max_false_alarms"}
_NOT_TUNING = {"for_goemotions", "variations", "goemotions_variations", "align_to", "max_false_alarms", "reuse", "batch_size"}


def prepared_folder(run: Run) -> Path:
    """Where the prepared splits lie."""
    return run.folder("prepare")


def model_folder(run: Run) -> Path:
    """Where the trained model and its tokenizer lie."""
    return run.folder(_training_stage(run.config)) / "model"


def chat_files(run: Run) -> list[Path]:
    """The files of whole chats that are scored."""
    return [Path(run.places.resolve(each)) for each in run.config.evaluation.chats]


def policy_of(config: TrainingConfig) -> EscalationPolicy:
    """The escalation policy that whole chats are scored by."""
    return read_policy(Path(config.evaluation.policy) if config.evaluation.policy else DEFAULT_POLICY)


def _download(run: Run) -> dict[str, Any]:
    if run.config.data.english is None:
        raise ConfigError("nothing to download: the configuration has no [data.english] table")
    card = download(run.config.data.english, run.places, output=run.folder("download"))
    return {name: split["rows"] for name, split in card["splits"].items()}


def _translate(run: Run) -> dict[str, Any]:
    from training.translation.translate import translate

    card = translate(run.config.translation, run.places, downloaded=run.folder("download"), output=run.folder("translate"))
    return dict(card["splits"])


def _prepare(run: Run) -> dict[str, Any]:
    translated = Translated(run.folder("download"), run.folder("translate")) if _is_translated(run.config) else None
    card = prepare(run.config.data, run.places, output=run.folder("prepare"), translated=translated)
    return {name: split["rows"] for name, split in card["splits"].items()}


def _train_teacher(run: Run) -> dict[str, Any]:
    from training.finetune.checkpoints import checkpoint_folder
    from training.finetune.teach import tune_teacher

    start = checkpoint_folder(run.places.resolve(run.config.teacher.folder), setting="teacher.folder")
    return tune_teacher(run.config, start=start, prepared=prepared_folder(run), output=run.folder("train-teacher"))


def _teach(run: Run) -> dict[str, Any]:
    from training.finetune.teach import teach

    tuned = run.folder("train-teacher") / "teacher" if run.config.teacher.tune else None
    return teach(run.config, run.places, tuned_folder=tuned, prepared=prepared_folder(run), output=run.folder("teach"))


def _train(run: Run) -> dict[str, Any]:
    from training.finetune.finetune import finetune

    return finetune(run.config, run.places, prepared=prepared_folder(run), output=run.folder("train"))


def _distill(run: Run) -> dict[str, Any]:
    from training.finetune.distil import distil

    folders = {"prepared": prepared_folder(run), "taught": run.folder("teach"), "output": run.folder("distill")}
    return distil(run.config, run.places, **folders)


def _predict(run: Run) -> dict[str, Any]:
    from training.finetune.predict import predict

    return predict(
        model_folder=model_folder(run),
        prepared=prepared_folder(run),
        chats=chat_files(run),
        output=run.folder("predict"),
        max_tokens=run.config.model.max_tokens,
    )


def _thresholds(run: Run) -> dict[str, Any]:
    return choose(run.config.thresholds, predicted=run.folder("predict"), output=run.folder("thresholds"), seed=run.config.seed)


def _calibrate(run: Run) -> dict[str, Any]:
    folders = {"predicted": run.folder("predict"), "output": run.folder("calibrate")}
    return calibrate(run.config.calibration, seed=run.config.seed, **folders)


def _evaluate(run: Run) -> dict[str, Any]:
    scoreable = Scoreable(
        prepared=prepared_folder(run),
        predicted=run.folder("predict"),
        chosen=run.folder("thresholds"),
        calibrated=run.folder("calibrate"),
        policy=policy_of(run.config),
    )
    return evaluate(scoreable, output=run.folder("evaluate"), seed=run.config.seed)


def trained(run: Run) -> "Trained":
    """What exports start from."""
    from training.export.compare import Trained

    return Trained(
        model=model_folder(run),
        prepared=prepared_folder(run),
        predicted=run.folder("predict"),
        thresholds=read_thresholds(run.folder("thresholds")),
        max_tokens=run.config.model.max_tokens,
        seed=run.config.seed,
    )


def _export(run: Run) -> dict[str, Any]:
    from training.export.compare import export

    return export(trained(run), way=run.config.bundle.quantisation, output=run.folder("export"), threads=run.threads)


def _bundle(run: Run) -> dict[str, Any]:
    from training.export.bundle import BundleSources, write_bundle

    sources = BundleSources(
        model=model_folder(run),
        prepared=prepared_folder(run),
        predicted=run.folder("predict"),
        chosen=run.folder("thresholds"),
        exported=run.folder("export"),
        evaluated=run.folder("evaluate"),
        calibrated=run.folder("calibrate"),
    )
    return write_bundle(run.config, sources, output=run.places.bundles / run.config.bundle.name)


def _is_translated(config: TrainingConfig) -> bool:
    return config.data.english is not None


def _is_distilled(config: TrainingConfig) -> bool:
    return config.train.recipe == "distil"


def _is_finetuned(config: TrainingConfig) -> bool:
    return not _is_distilled(config)


def _training_stage(config: TrainingConfig) -> str:
    return "distill" if _is_distilled(config) else "train"


def _data_part(config: TrainingConfig) -> Any:
    """Return what decides which rows there are: not how often they are shown, nor what the cards say of them."""
    files = [[each.name, each.glob] for each in config.data.corpora]
    return [config.data.model_dump(exclude={"corpora"}), files]


def _model_part(config: TrainingConfig) -> Any:
    unset = {"vocabulary_size"} if config.model.vocabulary_size is None else set()  # runs from before that setting hold
    return [
        config.model.model_dump(exclude=unset),
        config.train.model_dump(),
        [[each.name, each.repeat] for each in config.data.corpora],
    ]


def _files(run: Run, *named: str | None) -> list[Path]:
    return [Path(run.places.resolve(each)) for each in named if each]


def _english_files(run: Run) -> list[Path]:
    english = run.config.data.english
    return _files(run, english.hub, english.train, english.validation, english.test) if english else []


def _data_files(run: Run) -> list[Path]:
    data = run.config.data
    corpora = [path for each in data.corpora for path in sorted(glob(run.places.resolve(each.glob)))]  # noqa: PTH207
    own = (data.russian_train, data.english_train if data.english_fill else None, data.validation, data.test)
    return [*_files(run, *(() if _is_translated(run.config) else own)), *map(Path, corpora)]


def _teaching_files(run: Run) -> list[Path]:
    teacher = run.config.teacher
    return _files(run, None if teacher.tune else teacher.folder, teacher.for_goemotions, teacher.align_to, *teacher.reuse)


def _model_files(run: Run) -> list[Path]:
    model = run.config.model
    return _files(run, model.start_from or model.embeddings_from or model.base)


STAGES = (
    Stage(
        "download",
        lambda config: config.data.english.model_dump() if config.data.english else None,
        lambda _: (),
        _download,
        _is_translated,
        _english_files,
    ),
    Stage(
        "translate",
        lambda config: config.translation.model_dump(exclude={"batch_size", "chunk_size", "cache"}),
        lambda _: ("download",),
        _translate,
        _is_translated,
        lambda run: _files(run, run.config.translation.model),
    ),
    Stage(
        "prepare",
        _data_part,
        lambda config: ("download", "translate") if _is_translated(config) else (),
        _prepare,
        reads=_data_files,
    ),
    Stage(
        "train-teacher",
        lambda config: [
            config.teacher.model_dump(exclude=_NOT_TUNING),
            [[each.name, each.teacher_repeat] for each in config.data.corpora],
            config.model.max_tokens,
            config.train.noise.model_dump(),
        ],
        lambda _: ("prepare",),
        _train_teacher,
        lambda config: _is_distilled(config) and config.teacher.tune is not None,
        lambda run: _files(run, run.config.teacher.folder),
    ),
    Stage(
        "teach",
        lambda config: config.teacher.model_dump(include=_TEACHING) | {"max_tokens": config.model.max_tokens},
        lambda config: ("prepare", "train-teacher") if config.teacher.tune else ("prepare",),
        _teach,
        _is_distilled,
        _teaching_files,
    ),
    Stage("train", _model_part, lambda _: ("prepare",), _train, _is_finetuned, _model_files),
    Stage("distill", _model_part, lambda _: ("prepare", "teach"), _distill, _is_distilled, _model_files),
    Stage(
        "predict",
        lambda config: [config.model.max_tokens, config.evaluation.chats],
        lambda config: (_training_stage(config),),
        _predict,
        reads=chat_files,
    ),
    Stage("thresholds", lambda config: config.thresholds.model_dump(), lambda _: ("predict",), _thresholds),
    Stage("calibrate", lambda config: config.calibration.model_dump(), lambda _: ("predict",), _calibrate),
    Stage(
        "evaluate", lambda config: policy_of(config).model_dump(), lambda _: ("predict", "thresholds", "calibrate"), _evaluate
    ),
    Stage("export", lambda config: config.bundle.quantisation, lambda config: (_training_stage(config), "thresholds"), _export),
    Stage("bundle", lambda config: config.model_dump(mode="json"), lambda _: ("evaluate", "export"), _bundle),
)


def stages_until(name: str) -> tuple[Stage, ...]:
    """Return the stages up to this one, in order."""
    return STAGES[: 1 + [stage.name for stage in STAGES].index(name)]
