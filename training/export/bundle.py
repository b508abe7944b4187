"""The stage `bundle`: weights, tokenizer, manifest, card and report in one folder, read back as the worker reads it."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from training.config import ConfigError, TrainingConfig
from training.data.prepare import CARD_NAME
from training.evaluation.baseline import label_baseline
from training.evaluation.report import METRICS_NAME, REPORT_FILES
from training.export.card import REPORT_FOLDER, Example, render_card
from training.thresholds.calibrate import read_calibration
from training.thresholds.choose import read_thresholds
from worker.core.labels import GOEMOTIONS_LABELS, tone_of
from worker.inference.model_bundle import (
    MANIFEST_NAME,
    ONNX_NAME,
    SAFETENSORS_NAME,
    TOKENIZER_NAME,
    LabelCalibration,
    Manifest,
    ModelBundle,
    file_digest,
    load_model_bundle,
)
from worker.inference.onnx_classifier import OnnxClassifier

CARD_FILE = "README.md"
_LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class BundleSources:
    """The folders of a run that a bundle is made from."""

    model: Path
    prepared: Path
    predicted: Path
    chosen: Path
    exported: Path
    evaluated: Path
    calibrated: Path


def write_bundle(config: TrainingConfig, sources: BundleSources, *, output: Path) -> dict[str, Any]:
    """Write the bundle to `output`, replacing what was there, and classify the card's examples with it.

    Card and report are no part of the manifest's digests: the card quotes what the finished bundle says, and nothing that the
    worker does depends on either.
    """
    if output.exists():
        shutil.rmtree(output)
    output.mkdir(parents=True)
    shutil.copyfile(sources.exported / ONNX_NAME, output / ONNX_NAME)
    shutil.copyfile(sources.model / TOKENIZER_NAME, output / TOKENIZER_NAME)
    half = {name: value.to(torch.float16) for name, value in load_file(sources.model / SAFETENSORS_NAME).items()}
    save_file(half, output / SAFETENSORS_NAME, metadata={"format": "pt"})
    (output / SAFETENSORS_NAME).chmod(0o644)  # it is made readable to its owner alone
    (output / REPORT_FOLDER).mkdir()
    for name in REPORT_FILES:
        shutil.copyfile(sources.evaluated / name, output / REPORT_FOLDER / name)
    manifest = _manifest(config, sources, output=output)
    text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=1)
    (output / MANIFEST_NAME).write_text(text + "\n", "utf-8")
    examples = classify_examples(load_model_bundle(output), config.data.reserved_texts)
    (output / CARD_FILE).write_text(render_card(manifest, examples), "utf-8")
    return {"folder": str(output), "examples": {each.text: each.labels for each in examples}}


def classify_examples(bundle: ModelBundle, texts: Sequence[str]) -> list[Example]:
    """Return what the worker's own classifier says of the texts, each on its own."""
    classifier, scorer = OnnxClassifier(bundle, threads=1), bundle.scorer({})
    examples = []
    for text in texts:
        score = scorer.score(classifier.logits(classifier.tokenize([text]))[0])
        labels = {each.label: each.probability for each in score.emotions}
        examples.append(Example(text, labels, tone_of(labels)))
    return examples


def _manifest(config: TrainingConfig, sources: BundleSources, *, output: Path) -> Manifest:
    scores = _read_json(sources.evaluated / METRICS_NAME)
    architecture = _read_json(sources.model / "config.json")
    labels = tuple(architecture["id2label"][str(index)] for index in range(len(GOEMOTIONS_LABELS)))
    if labels != GOEMOTIONS_LABELS:
        raise ConfigError(f"{sources.model} orders its labels otherwise than the saved logits; train it with this project")
    files = sorted(path.name for path in output.iterdir() if path.is_file())
    return Manifest(
        name=config.bundle.name,
        version=config.bundle.version,
        architecture=architecture,
        labels=labels,
        activation="sigmoid",
        thresholds=scores["thresholds"]["thresholds"],
        calibration=_calibration(sources.calibrated),
        baseline=label_baseline(sources.predicted, read_thresholds(sources.chosen)),
        max_tokens=config.model.max_tokens,
        pad_token_id=architecture["pad_token_id"],
        files={name: file_digest(output / name) for name in files},
        base=config.bundle.base,
        data=_corpora(config, _read_json(sources.prepared / CARD_NAME)),
        config=config.model_dump(mode="json"),
        versions={library: version(library) for library in _LIBRARIES},
        metrics={**_without_details(scores), "export": _read_json(sources.exported / "parity.json")},
    )


def _without_details(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores without those that only the report shows, which is shipped whole beside the manifest."""
    return {name: value for name, value in scores.items() if name != "details"}


def _calibration(folder: Path) -> dict[str, LabelCalibration] | None:
    found = read_calibration(folder)
    if found is None:
        return None
    columns = zip(GOEMOTIONS_LABELS, found.scales, found.offsets, strict=True)
    return {label: LabelCalibration(scale=scale, offset=offset) for label, scale, offset in columns}


def _corpora(config: TrainingConfig, card: dict[str, Any]) -> list[dict[str, Any]]:
    """Return name, licence, origin and training rows of every corpus."""
    rows = card["splits"]["train"]["by_source"]
    named = [each.model_dump() for each in config.bundle.data]
    named += [{"name": each.name, "licence": each.licence, "origin": each.origin} for each in config.data.corpora]
    return [{**each, "training_rows": rows.get(each["name"], 0)} for each in named]


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values
