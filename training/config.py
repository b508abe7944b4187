"""The training configuration: one TOML file, validated, with every number that a run depends on.

Paths may begin with `{data}`, `{models}`, `{runs}` or `{corpus}`; the command line says where those folders are.
"""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CORPUS_FOLDER = Path(__file__).parent / "corpus"
BUNDLES_FOLDER = Path(__file__).parents[1] / "model_weights"


class ConfigError(Exception):
    """The configuration, or a file it names, can't be used; the text says what to change."""


class Section(BaseModel):
    """A table of the TOML file: unknown keys are refused, so that a misspelt setting can't pass unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusConfig(Section):
    """A JSONL corpus besides GoEmotions: rows {"text", "labels"}, and "split" train|tuning|reporting where it has one."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    glob: str = Field(description="the corpus's files")
    licence: str = Field(description="for the corpus and model cards")
    origin: str = Field(description="for the corpus and model cards")
    repeat: int = Field(1, ge=1, description="times an epoch shows each of its rows to the student")
    teacher_repeat: int = Field(1, ge=1, description="times an epoch shows each of its rows to the teacher")


class EnglishConfig(Section):
    """English GoEmotions to be translated, from the Hub or from three local files; it replaces the Russian files."""

    hub: str | None = Field(None, description="a data set on the Hub, or a folder laid out like one")
    subset: str = "simplified"
    revision: str = Field("main", description="branch, tag or commit of the data set")
    train: str | None = Field(None, description=".tsv (text, ids, comment id), .csv or .parquet (columns text, labels, id)")
    validation: str | None = None
    test: str | None = None

    @model_validator(mode="after")
    def _has_one_origin(self) -> "EnglishConfig":
        files = (self.train, self.validation, self.test)
        if (self.hub is None) == (None in files) or (self.hub and any(files)):
            raise ValueError("set either hub, or all of train, validation and test")
        return self


class DataConfig(Section):
    """Where the rows come from. With `english`, the Russian and English files named here are not read."""

    english: EnglishConfig | None = None
    russian_train: str = "{data}/ru_train.tsv"
    english_train: str = "{data}/goemotions_en_train.tsv"
    validation: str = "{data}/ru_goemotions_validation.csv"
    test: str = "{data}/ru_goemotions_test.csv"
    english_fill: bool = Field(True, description="add the English rows whose comment has no Russian row")
    reserved_texts: tuple[str, ...] = Field((), description="texts kept out of training, because they are shown as examples")
    near_duplicate: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of letter 5-grams from which two texts count as the same"
    )
    corpora: tuple[CorpusConfig, ...] = ()


class TranslationConfig(Section):
    """How English becomes Russian, and which translations are good enough to be trained on."""

    model: str = Field("Helsinki-NLP/opus-mt-en-ru", description="a MarianMT model: a name on the Hub or a folder")
    beams: int = Field(4, ge=1, description="1 is greedy, and faster")
    max_tokens: int = Field(128, ge=8, description="of a text and of its translation; a longer one is left out")
    batch_size: int = Field(32, ge=1)
    chunk_size: int = Field(2000, ge=1, description="texts a file of the cache; a stopped run loses at most one such chunk")
    cache: str = Field("{runs}/translation-cache", description="folder where translations are kept for later runs")
    min_length_ratio: float = Field(0.5, gt=0, description="translation to source in letters, both 15 longer than they are")
    max_length_ratio: float = Field(2.0, gt=0)
    max_repeated: int = Field(4, ge=1, description="times a word or phrase may stand in a row, unless it does so in the source")
    min_cyrillic: float = Field(0.4, ge=0, le=1, description="share of the translation's letters")


class ModelConfig(Section):
    """The model that is trained: a checkpoint as it is, or rubert-tiny2's shape on another model's embeddings."""

    base: str = Field("cointegrated/rubert-tiny2", description="a name on the Hub or a checkpoint's folder")
    embeddings_from: str | None = Field(
        None, description="an encoder's folder or name on the Hub; its embeddings by PCA, the layers random"
    )
    start_from: str | None = Field(
        None, description="a student of an earlier run, or a BERT on the Hub, to go on from instead of embeddings_from"
    )
    vocabulary_size: int | None = Field(
        None,
        ge=1,
        description="keep at most so many of embeddings_from's pieces: letters, then the most frequent of the training texts",
    )
    hidden_size: int = 312
    layers: int = 3
    heads: int = 12
    intermediate_size: int = 600
    max_positions: int = 2048
    embedding_std: float = 0.05
    dropout: float = Field(
        0.1, ge=0, lt=1, description="of a student on another model's embeddings; 0 is a quarter faster on CPU"
    )
    max_tokens: int = Field(128, ge=8)
    fold_case: bool = Field(False, description="the model reads lower case, and е for ё: chats use capitals and ё at random")

    @model_validator(mode="after")
    def _cuts_only_a_donor_s_vocabulary(self) -> "ModelConfig":
        if self.vocabulary_size and (self.start_from or not self.embeddings_from):
            raise ValueError("vocabulary_size needs embeddings_from and no start_from, whose layers know their vocabulary")
        return self


class AsymmetricConfig(Section):
    """The asymmetric loss: easy cells count less, and negative cells more so than positive ones."""

    gamma_pos: float = Field(0.0, ge=0)
    gamma_neg: float = Field(4.0, ge=0)
    margin: float = Field(0.05, ge=0, lt=1, description="probability up to which a negative cell costs nothing")


class LossConfig(Section):
    """The multi-label loss: plain binary cross-entropy, unless `focal_gamma` or `asymmetric` is set."""

    pos_weight: Literal["none", "inverse_sqrt", "inverse", "effective_number"] = "inverse_sqrt"
    effective_beta: float = Field(0.999, gt=0, lt=1)
    focal_gamma: float = Field(0.0, ge=0)
    asymmetric: AsymmetricConfig | None = None

    @model_validator(mode="after")
    def _is_one_loss(self) -> "LossConfig":
        if self.focal_gamma and self.asymmetric:
            raise ValueError("set focal_gamma or asymmetric, not both")
        return self


class OptimiserConfig(Section):
    """AdamW with linear warm-up and decay."""

    epochs: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    head_learning_rate: float | None = Field(None, description="of the new layers; learning_rate when unset")
    batch_size: int = Field(64, ge=1)
    weight_decay: float = 0.01
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps")
    decay: Literal["linear", "constant"] = Field("linear", description="of the learning rate, after the warm-up")
    clip: float = 1.0


class NoiseConfig(Section):
    """Chat noise on Russian training texts; the targets stay the clean text's."""

    share: float = Field(0.0, ge=0, le=1)


class TeacherConfig(Section):
    """The teacher, and how it is fine-tuned before it teaches (not at all when `tune` is absent)."""

    folder: str = Field("{models}/teacher", description="a teacher's or an encoder's folder, or an encoder's name on the Hub")
    tune: OptimiserConfig | None = None
    replay_rows: int | None = Field(None, ge=0, description="GoEmotions rows a run; all when unset")
    loss: LossConfig = LossConfig()
    batch_size: int = Field(64, ge=1, description="of the pass that saves its logits")
    for_goemotions: str | None = Field(
        None, description="another teacher, likewise, which answers GoEmotions' rows; the tuned one answers them when unset"
    )
    attention_dropout: float = Field(0.1, ge=0, lt=1, description="while it is tuned; 0 is much faster on CPU")
    frozen_layers: int = Field(0, ge=0, description="lowest layers that tuning leaves as they are, besides the embeddings")
    align_to: str | None = Field(
        None, description="`thresholds` folder of a run on GoEmotions, on which answers about the corpora are aligned"
    )
    max_false_alarms: float = Field(0.015, gt=0, lt=1, description="of the tuning rows, that the alignment aims at")
    variations: int = Field(0, ge=0, description="unlabelled texts made from each corpus row, for it to answer")
    goemotions_variations: int = Field(0, ge=0, description="GoEmotions rows, drawn at random, that a variation is made of")
    reuse: tuple[str, ...] = Field((), description="`teach` folders of other runs: answers by the same teacher, and variations")


class DistilConfig(Section):
    """Weights of the distillation loss; g = min(1, progress / ramp) moves from imitation to the labels' task."""

    ramp: float = Field(0.35, gt=0)
    label_weight: float = Field(0.3, description="· g · BCE(labels)")
    teacher_weight: float = Field(0.3, description="+ teacher_gain · g, · BCE(teacher's probabilities)")
    teacher_gain: float = 1.2
    vector_weight: float = Field(1.0, description="- vector_fall · g, · MSE(projection, teacher's standardised vector)")
    vector_fall: float = 0.7
    average_last: float = Field(0.25, ge=0, lt=1, description="share of the steps whose weights are averaged; 0: none")


class TrainConfig(Section):
    """How the model itself is trained, plainly or distilled."""

    recipe: Literal["finetune", "distil"] = "finetune"
    optimiser: OptimiserConfig
    loss: LossConfig = LossConfig()
    noise: NoiseConfig = NoiseConfig()
    distil: DistilConfig = DistilConfig()
    patience: int = Field(2, ge=1, description="finetune: epochs without a better validation macro-F1 before it stops")


class ThresholdConfig(Section):
    """How thresholds are chosen on validation."""

    min_support: int = Field(10, ge=0, description="rows below which a label takes the shared threshold")
    shrinkage: float | None = Field(None, ge=0, description="pseudo-rows of the shared threshold; unset: cross-validated")
    folds: int = Field(5, ge=2)
    max_false_alarms: float | None = Field(
        None, gt=0, lt=1, description="move the hostile labels' thresholds: at most this share of calm tuning rows over them"
    )
    max_macro_loss: float = Field(0.005, ge=0, description="of validation macro-F1, that moving them may cost")


class CalibrationConfig(Section):
    """How published probabilities are made to say how often a label is right; decisions do not depend on it."""

    method: Literal["platt", "temperature", "none"] = Field(
        "platt", description="scale and offset a label; one scale for all; or probabilities as the model gives them"
    )
    shrinkage: float = Field(20.0, ge=0, description="pseudo-rows of the shared scale that a label's own is held toward")
    folds: int = Field(5, ge=2, description="of the cross-validated errors")


class EvaluationConfig(Section):
    """What is scored besides the splits."""

    chats: tuple[str, ...] = Field((), description="files of whole chats, scored by the escalation policy")
    policy: str | None = Field(
        None, description="the escalation policy's file, a plain path without {data}; the worker's default when unset"
    )

    @model_validator(mode="after")
    def _tells_chats_apart(self) -> "EvaluationConfig":
        names = [Path(each).stem for each in self.chats]
        if len(set(names)) < len(names):
            raise ValueError("chats: rename the files that share a name; figures are kept by it")
        return self


class SourceConfig(Section):
    """What the cards say of a part of GoEmotions."""

    name: str
    licence: str
    origin: str


Quantisation = Literal["dynamic", "static", "block32", "block64", "short_float", "short_block64", "short_int8"]


class BundleConfig(Section):
    """What is shipped."""

    name: str = "rugo-tiny2"
    version: str = "1.0.0"
    quantisation: Quantisation = "short_int8"
    base: str = Field(description="for the card: what the weights were started from")
    data: tuple[SourceConfig, ...] = Field((), description="for the card: GoEmotions' sources and licences")


class TrainingConfig(Section):
    """One run."""

    run: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="the folder under --runs-dir")
    seed: int = 17
    data: DataConfig = DataConfig()
    translation: TranslationConfig = TranslationConfig()
    model: ModelConfig = ModelConfig()
    teacher: TeacherConfig = TeacherConfig()
    train: TrainConfig
    thresholds: ThresholdConfig = ThresholdConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    bundle: BundleConfig

    @model_validator(mode="after")
    def _distillation_has_a_student(self) -> "TrainingConfig":
        if self.train.recipe == "distil" and not (self.model.embeddings_from or self.model.start_from):
            raise ValueError("recipe = 'distil' needs model.embeddings_from or model.start_from")
        return self

    @model_validator(mode="after")
    def _distillation_has_its_own_loss(self) -> "TrainingConfig":
        if self.train.recipe == "distil" and (self.train.loss.focal_gamma or self.train.loss.asymmetric):
            raise ValueError("recipe = 'distil' takes pos_weight alone of train.loss; take focal_gamma and asymmetric out")
        return self


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that a configuration's paths refer to."""

    data: Path
    models: Path
    runs: Path
    bundles: Path = BUNDLES_FOLDER
    corpus: Path = CORPUS_FOLDER

    def resolve(self, path: str) -> str:
        """Fill in `{data}`, `{models}`, `{runs}` and `{corpus}`; raises `ConfigError` where something else is in braces."""
        try:
            return path.format(data=self.data, models=self.models, runs=self.runs, corpus=self.corpus)
        except (KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"can't fill in {path!r}; only {{data}}, {{models}}, {{runs}} and {{corpus}} may be in braces"
            ) from error


def read_config(path: Path) -> TrainingConfig:
    """Read and validate a configuration file; raises `ConfigError`."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        return TrainingConfig.model_validate(values)
    except OSError as error:
        raise ConfigError(f"can't read {path} ({error.strerror}); give --config one of training/configs/*.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML in UTF-8: {error}") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join([f"{path} can't be used; mend:", *lines])) from error


def digest_of(values: Any) -> str:
    """Return a short digest of JSON-able values, by which a stage knows its own earlier output."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
