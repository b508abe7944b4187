"""A bundle: the folder with a model's weights, tokenizer, thresholds and the manifest that binds them.

The manifest is the only authority on label order, thresholds, token limit and digests. Nothing in a bundle is unpickled:
weights are ONNX or safetensors, everything else is JSON.
"""

import errno
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.core.drift import LabelBaseline
from worker.core.failures import ModelBundleError
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import Calibration, Scorer

MANIFEST_NAME = "manifest.json"
ONNX_NAME = "model.onnx"
SAFETENSORS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"
_FILE_NAME = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "model_weights" / "rugo-tiny2"


class LabelCalibration(BaseModel):
    """A label's calibrated probability is sigmoid(scale · logit + offset)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scale: float = Field(gt=0)
    offset: float


class Manifest(BaseModel):
    """manifest.json: what the worker must know of a model, and where the model comes from.

    `thresholds` are of the plain sigmoid of the graph's logits, rounded to four decimals: whoever runs model.onnx by hand needs
    no calibration to get the worker's labels. `calibration` serves the numbers that are shown to people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    architecture: dict[str, Any] = Field(description="the Hugging Face configuration of the model")
    labels: tuple[str, ...] = Field(description="label of each column of the logits")
    activation: Literal["sigmoid"]
    thresholds: dict[str, float] = Field(description="label to decision threshold on the logit's plain sigmoid, 0 < t <= 1")
    calibration: dict[str, LabelCalibration] | None = Field(
        None, description="label to scale and offset of its logit; absent: probabilities are published as they are"
    )
    baseline: LabelBaseline | None = Field(None, description="what drift is measured against; absent: drift is not measured")
    max_tokens: int = Field(ge=8, description="longest input in tokens, special tokens included")
    pad_token_id: int = Field(ge=0)
    files: dict[str, str] = Field(description="file name to SHA-256 in hex, of every file but this one and the card")
    base: str = Field(description="what the weights were started from")
    data: list[dict[str, Any]] = Field(description="the corpora: name, licence, rows")
    config: dict[str, Any] = Field(description="the training configuration")
    versions: dict[str, str] = Field(description="library versions at training")
    metrics: dict[str, Any] = Field(description="scores on validation and test")

    @model_validator(mode="after")
    def _check_labels_and_files(self) -> "Manifest":
        if sorted(self.labels) != sorted(GOEMOTIONS_LABELS):
            raise ValueError("labels must be the 28 GoEmotions labels, each once")
        if set(self.thresholds) != set(self.labels):
            raise ValueError("thresholds must have exactly one entry a label")
        if self.calibration is not None and set(self.calibration) != set(self.labels):
            raise ValueError("calibration must have exactly one entry a label")
        if not all(0.0 < threshold <= 1.0 for threshold in self.thresholds.values()):
            raise ValueError("every threshold must be above 0 and at most 1")
        for required in (ONNX_NAME, TOKENIZER_NAME):
            if required not in self.files:
                raise ValueError(f"files must list {required}")
        for name in self.files:
            if not _FILE_NAME.fullmatch(name):
                raise ValueError(f"files lists {name!r}, which is no plain name of a file in the bundle's folder")
        return self


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A bundle whose files were checked against its manifest; whoever loads one of them takes it from `read`.

    `digest` is the SHA-256 of the manifest, which holds every other file's: it names weights, tokenizer and thresholds at once.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds in the order of the logits' columns."""
        return tuple(self.manifest.thresholds[label] for label in self.manifest.labels)

    @property
    def calibration(self) -> Calibration | None:
        """The calibration in the order of the logits' columns, if the bundle has one."""
        if self.manifest.calibration is None:
            return None
        found = [self.manifest.calibration[label] for label in self.manifest.labels]
        return Calibration(tuple(each.scale for each in found), tuple(each.offset for each in found))

    def read(self, name: str) -> bytes:
        """Return a file's content, which is what the manifest says: what is loaded is what was verified, read once.

        Raises `ModelBundleError`, with what to do, when the file is missing or altered.
        """
        path, expected = self.folder / name, self.manifest.files[name]
        try:
            content = _read_regular_file(path)
        except OSError as error:
            raise ModelBundleError(
                f"{path} is missing or can't be read ({error.strerror}). "
                "Restore the bundle's files (`git checkout` for the shipped one)."
            ) from error
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            raise ModelBundleError(
                f"{path} was altered: its SHA-256 is {actual[:12]}…, the manifest says {expected[:12]}…. "
                "Restore the bundle's files (`git checkout` for the shipped one)."
            )
        return content

    def scorer(self, weights: Mapping[str, float]) -> Scorer:
        """Return what turns this model's logits into scores; `weights` are the escalation policy's."""
        return Scorer(self.manifest.labels, thresholds=self.thresholds, weights=weights, calibration=self.calibration)


def load_model_bundle(folder: Path) -> ModelBundle:
    """Read a bundle and verify every file's digest.

    Raises `ModelBundleError`, with what to do, when the folder or a file is missing, altered, or not as the manifest says.
    """
    manifest_path = folder / MANIFEST_NAME
    try:
        raw = _read_regular_file(manifest_path)
    except OSError as error:
        raise ModelBundleError(
            f"no model bundle at {folder}: can't read {MANIFEST_NAME} ({error.strerror}). "
            "Point RUGO_MODEL at a bundle's folder, or leave it unset for the shipped one."
        ) from error
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelBundleError(
            f"{manifest_path} is not a manifest of this version: {where}: {first['msg']}. "
            "Restore it, or export the bundle again with `python -m training bundle`."
        ) from error
    bundle = ModelBundle(folder=folder, manifest=manifest, digest=f"sha256:{hashlib.sha256(raw).hexdigest()}")
    for name in sorted(manifest.files):
        bundle.read(name)
    return bundle


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_regular_file(path: Path) -> bytes:
    # A device or a pipe in a file's place could be read for ever.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file")
    return path.read_bytes()
