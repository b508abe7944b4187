import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest

from worker.core.failures import ModelBundleError
from worker.core.labels import GOEMOTIONS_LABELS
from worker.inference.model_bundle import load_model_bundle
from worker.inference.onnx_classifier import OnnxClassifier
from worker.inference.tokenizer import BundleTokenizer, pad_token_ids


@pytest.fixture
def bundle_copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def replace_file(folder, name, content):
    """Put another file into a bundle, as its manifest then says."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
    edit_manifest(folder, files={**files, name: hashlib.sha256(content).hexdigest()})


def test_a_whole_bundle_loads(bundle_copy):
    bundle = load_model_bundle(bundle_copy)
    assert len(bundle.thresholds) == 28
    assert bundle.digest.startswith("sha256:")


def test_a_bundle_of_before_calibration_publishes_plain_probabilities(bundle_copy):
    path = bundle_copy / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest.pop("calibration", None)
    path.write_text(json.dumps(manifest), "utf-8")
    bundle = load_model_bundle(bundle_copy)
    assert bundle.calibration is None
    assert bundle.scorer({}).score(np.zeros(28)).probabilities == (0.5,) * 28


def test_a_baseline_s_shares_come_back_as_counts_and_a_bundle_of_before_has_none(bundle_copy):
    assert load_model_bundle(bundle_copy).manifest.baseline is None
    shares = dict.fromkeys(GOEMOTIONS_LABELS, 0.0) | {"anger": 0.25}
    edit_manifest(bundle_copy, baseline={"source": "a corpus", "messages": 200, "shares": shares, "unlabelled": 0.75})
    counts = load_model_bundle(bundle_copy).manifest.baseline.counts()
    assert (counts.messages, counts.given["anger"], counts.given["joy"], counts.unlabelled) == (200, 50, 0, 150)


def test_a_baseline_that_does_not_account_for_every_message_is_refused(bundle_copy):
    shares = dict.fromkeys(GOEMOTIONS_LABELS, 0.0) | {"anger": 0.25}
    edit_manifest(bundle_copy, baseline={"source": "a corpus", "messages": 200, "shares": shares, "unlabelled": 0.1})
    with pytest.raises(ModelBundleError, match="every message has a label or none"):
        load_model_bundle(bundle_copy)


def test_a_baseline_that_lacks_a_label_is_refused(bundle_copy):
    edit_manifest(bundle_copy, baseline={"source": "a corpus", "messages": 9, "shares": {"anger": 0.5}, "unlabelled": 0.5})
    with pytest.raises(ModelBundleError, match="exactly one entry a label"):
        load_model_bundle(bundle_copy)


def test_a_calibration_is_read_in_the_order_of_the_logits(bundle_copy):
    given = {label: {"scale": 0.5, "offset": float(number)} for number, label in enumerate(reversed(GOEMOTIONS_LABELS))}
    edit_manifest(bundle_copy, calibration=given)
    calibration = load_model_bundle(bundle_copy).calibration
    assert calibration.offsets == tuple(float(27 - number) for number in range(28))
    assert calibration.scales == (0.5,) * 28


def test_files_that_the_manifest_does_not_list_are_let_be(bundle_copy):
    (bundle_copy / "report").mkdir()
    (bundle_copy / "report" / "report.md").write_text("# Report", "utf-8")
    assert load_model_bundle(bundle_copy).folder == bundle_copy


def test_a_missing_folder_says_which_setting_to_change(tmp_path):
    with pytest.raises(ModelBundleError, match="RUGO_MODEL"):
        load_model_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_an_altered_or_missing_file_is_named(bundle_copy, name):
    with (bundle_copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelBundleError, match=f"{name} was altered"):
        load_model_bundle(bundle_copy)
    (bundle_copy / name).unlink()
    with pytest.raises(ModelBundleError, match=f"{name} is missing"):
        load_model_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": ["anger"]}, "28 GoEmotions labels"),
        ({"thresholds": {}}, "one entry a label"),
        ({"activation": "softmax"}, "activation"),
        ({"files": {}}, "must list model.onnx"),
        ({"surprise": 1}, "surprise"),
        ({"calibration": {"anger": {"scale": 1.0, "offset": 0.0}}}, "calibration must have exactly one entry a label"),
        ({"calibration": {"anger": {"scale": 0.0, "offset": 0.0}}}, "greater than 0"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(bundle_copy, changes, told):
    edit_manifest(bundle_copy, **changes)
    with pytest.raises(ModelBundleError, match=told):
        load_model_bundle(bundle_copy)


@pytest.mark.parametrize("name", ["../../etc/hostname", "/etc/hostname", "..", ".", "", "report/x", "a\\b", "a\0b", ".hidden"])
def test_a_file_outside_the_folder_is_refused(bundle_copy, name):
    files = json.loads((bundle_copy / "manifest.json").read_text("utf-8"))["files"]
    edit_manifest(bundle_copy, files={**files, name: "0"})
    with pytest.raises(ModelBundleError, match="no plain name of a file in the bundle's folder"):
        load_model_bundle(bundle_copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_file_that_is_altered_after_it_was_verified_is_not_loaded(bundle_copy, name):
    bundle = load_model_bundle(bundle_copy)
    with (bundle_copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelBundleError, match=f"{name} was altered"):
        OnnxClassifier(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_device_in_a_file_s_place_is_not_read_for_ever(bundle_copy, name):
    (bundle_copy / name).unlink()
    (bundle_copy / name).symlink_to("/dev/zero")
    with pytest.raises(ModelBundleError, match="it is no file"):
        load_model_bundle(bundle_copy)


def test_bytes_that_are_no_model_are_refused(bundle_copy):
    replace_file(bundle_copy, "model.onnx", b"not a graph")
    with pytest.raises(ModelBundleError, match="can't be loaded"):
        OnnxClassifier(load_model_bundle(bundle_copy))


def test_a_graph_that_keeps_weights_in_another_file_is_refused(bundle_copy):
    graph = onnx.load(bundle_copy / "model.onnx")
    onnx.save(graph, bundle_copy / "model.onnx", save_as_external_data=True, location="unlisted.bin", size_threshold=0)
    assert (bundle_copy / "unlisted.bin").exists()
    replace_file(bundle_copy, "model.onnx", (bundle_copy / "model.onnx").read_bytes())
    with pytest.raises(ModelBundleError, match="can't be loaded"):
        OnnxClassifier(load_model_bundle(bundle_copy))


def test_of_a_long_text_the_beginning_and_the_end_are_kept(tiny_bundle):
    tokenizer = BundleTokenizer((tiny_bundle / "tokenizer.json").read_bytes(), max_tokens=8)
    short, long = tokenizer.tokenize(["рада", "спасибо " + "почему " * 50 + "злюсь"])
    assert (short.token_count, short.was_truncated) == (3, False)
    assert (long.token_count, long.was_truncated) == (8, True)
    whole = BundleTokenizer((tiny_bundle / "tokenizer.json").read_bytes(), max_tokens=1000).tokenize(
        ["спасибо " + "почему " * 50 + "злюсь"]
    )[0]
    assert long.token_ids == whole.token_ids[:4] + whole.token_ids[-4:]


def test_texts_are_padded_on_the_right(tiny_bundle):
    tokenized = BundleTokenizer((tiny_bundle / "tokenizer.json").read_bytes(), max_tokens=8).tokenize(["рада", "спасибо рада"])
    token_ids, mask = pad_token_ids(tokenized, pad_token_id=0)
    assert token_ids.shape == mask.shape == (2, 4)
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert token_ids[0, 3] == 0
