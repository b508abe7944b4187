"""The model card, written from the manifest's numbers alone."""

from dataclasses import dataclass
from typing import Any

from training.evaluation.plots import CORRELATION_PNG, LABELS_PNG, RELIABILITY_PNG
from training.evaluation.report import METRICS_NAME, PAGE_NAME, REPORT_NAME
from training.evaluation.tables import (
    CHAT_WORDS,
    NOISE_WORDS,
    TONE_WORDS,
    calibration_table,
    calibration_words,
    cell,
    corpora_table,
    escalation_table,
    label_table,
    noise_table,
    split_table,
    strength_line,
    table,
    threshold_line,
    tone_table,
    union_line,
)
from worker.core.scoring import PROBABILITY_DECIMALS
from worker.inference.model_bundle import Manifest

REPORT_FOLDER = "report"


@dataclass(frozen=True, slots=True)
class Example:
    """A text, the published probability of each label that the bundle gives it, and its tone."""

    text: str
    labels: dict[str, float]
    tone: str


def render_card(manifest: Manifest, examples: list[Example]) -> str:
    """Return README.md of a bundle."""
    parts = [
        f"# {manifest.name} {manifest.version}",
        "Labels Russian text with GoEmotions' 28 emotions, several at once, with one decision threshold an emotion. "
        "Generated from `manifest.json`; do not edit.",
        "## What it is",
        _what_it_is(manifest),
        *(["## Examples", _examples(examples)] if examples else []),
        "## Scores",
        split_table(manifest.metrics),
        union_line(manifest.metrics),
        threshold_line(manifest.metrics["thresholds"]),
        f"The whole report, with threshold curves, confusions and errors: [{PAGE_NAME}]({REPORT_FOLDER}/{PAGE_NAME}), "
        f"[{REPORT_NAME}]({REPORT_FOLDER}/{REPORT_NAME}), [{METRICS_NAME}]({REPORT_FOLDER}/{METRICS_NAME}).",
        *_support(manifest.metrics),
        *_probabilities(manifest),
        "### By label (test)",
        strength_line(manifest.metrics["test_by_label"]),
        label_table(manifest.metrics["test_by_label"], manifest.metrics["test_averages"]),
        f"![F1 by label]({REPORT_FOLDER}/{LABELS_PNG})",
        f"![Correlation of predicted emotions]({REPORT_FOLDER}/{CORRELATION_PNG})",
        "## Files",
        _files(manifest.metrics["export"]),
        "## Data",
        _data(manifest),
        "## Intended use and limits",
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """- For hearing the tone of clients' messages in Russian support chats, so that a chat in trouble can be given to
  another operator. A hint to people, not a verdict: not for judging staff or clients, for health, hiring, credit or policing.
- GoEmotions are Reddit comments in English, labelled by few people and translated by machine: irony, swearing and politeness
  are partly lost, and annotators themselves agree only moderately. Rare emotions (grief, relief, pride, nervousness) have too
  few rows for their scores to mean much.
- The support-chat rows were written for this project, not collected from real clients; scores on them tell how well the model
  does what its authors wrote, and real chats will be harder.
- Texts are cut to the token limit. Other languages than Russian were hardly looked at."""


def _what_it_is(manifest: Manifest) -> str:
    shape = manifest.architecture
    return (
        f"- Base: {manifest.base}.\n"
        f"- Architecture: {', '.join(shape['architectures'])}, {shape['num_hidden_layers']} layers, hidden "
        f"{shape['hidden_size']}, {shape['num_attention_heads']} heads, intermediate {shape['intermediate_size']}, vocabulary "
        f"{shape['vocab_size']}.\n"
        f"- Input up to {manifest.max_tokens} tokens; output 28 logits, {manifest.activation}, label order and thresholds in "
        "`manifest.json`."
    )


def _examples(examples: list[Example]) -> str:
    def labels_of(example: Example) -> str:
        return ", ".join(f"{label} {probability:.2f}" for label, probability in example.labels.items()) or "none"

    return table(("text", "tone", "emotions"), [(cell(each.text), each.tone, labels_of(each)) for each in examples])


def _support(metrics: dict[str, Any]) -> list[str]:
    sections = ["### Tone", TONE_WORDS, tone_table(metrics["tones"])]
    if metrics["corpora"]:
        sections = [
            "### Support chats",
            "Messages of scenarios that training never saw; `tuning` chose thresholds and calibration, `reporting` only "
            "reports. Hostile is any of anger, annoyance, disappointment, disapproval, disgust; a false alarm is such a "
            "label on a neutral or positive one.",
            corpora_table(metrics["corpora"]),
            *sections,
        ]
    if metrics["noise"]:
        sections += ["### Noise", NOISE_WORDS, noise_table(metrics["noise"])]
    if metrics["escalations"]:
        sections += ["### Whole chats", CHAT_WORDS, escalation_table(metrics["escalations"])]
    return sections


def _probabilities(manifest: Manifest) -> list[str]:
    if manifest.calibration is None:
        return []
    return [
        "### Probabilities",
        f"{calibration_words(is_calibrated=True)} Whoever runs `model.onnx` by hand: the sigmoid of a logit, rounded to "
        f"{PROBABILITY_DECIMALS} decimals, against `thresholds` of `manifest.json` gives the worker's labels; the sigmoid of "
        "scale · logit + offset, from `calibration`, is the probability that it publishes.",
        calibration_table(manifest.metrics),
        f"![Reliability before and after calibration]({REPORT_FOLDER}/{RELIABILITY_PNG})",
    ]


def _files(export: dict[str, Any]) -> str:
    return (
        f"`model.onnx` is int8 ({export['way']}): {export['cell_agreement']:.2%} of the test split's labels as torch decides "
        f"them in float32, macro-F1 {export['macro_f1_difference']:+.4f}; a probability moves by at most "
        f"{export['batch_dependence']:.4f} with the texts it is batched with. `model.safetensors` is the same model in half "
        "precision. Nothing here needs unpickling."
    )


def _data(manifest: Manifest) -> str:
    fields = ("name", "training_rows", "licence", "origin")
    rows = [[each[field] for field in fields] for each in manifest.data]
    return table(("corpus", "training rows", "licence", "origin"), rows)
