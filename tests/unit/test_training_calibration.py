import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import CalibrationConfig
from training.evaluation.calibration_error import (
    brier_scores,
    calibration_scores,
    expected_calibration_errors,
    reliability_curve,
)
from training.thresholds.calibrate import calibrate, fit_calibration, read_calibration
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import probabilities_from_logits


def _drawn(*, seed: int, rows: int, scale: float, offset: float, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that come true as often as sigmoid(scale · logit + offset) says."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 2, (rows, labels))
    truth = chance.random(logits.shape) < 1 / (1 + np.exp(-(scale * logits + offset)))
    return logits, truth.astype(float)


def _fit(logits, labels, **settings_of):
    return fit_calibration(CalibrationConfig(**settings_of), logits, labels, weights=np.ones(len(logits)))


def test_platt_scaling_finds_the_scale_and_offset_that_labels_were_drawn_by() -> None:
    found = _fit(*_drawn(seed=0, rows=6000, scale=0.6, offset=-1.5))
    np.testing.assert_allclose(found.scales, 0.6, atol=0.06)
    np.testing.assert_allclose(found.offsets, -1.5, atol=0.12)


def test_the_fit_is_scikit_learns_logistic_regression_where_nothing_is_smoothed_away() -> None:
    from sklearn.linear_model import LogisticRegression

    logits, labels = _drawn(seed=1, rows=20_000, scale=1.3, offset=0.4, labels=2)
    found = _fit(logits, labels, shrinkage=0)
    for label in range(2):
        theirs = LogisticRegression(C=1e9).fit(logits[:, [label]], labels[:, label])
        assert found.scales[label] == pytest.approx(theirs.coef_[0, 0], abs=2e-3)
        assert found.offsets[label] == pytest.approx(theirs.intercept_[0], abs=2e-3)


def test_temperature_is_one_scale_without_offset() -> None:
    found = _fit(*_drawn(seed=2, rows=4000, scale=0.5, offset=0.0), method="temperature")
    assert found.offsets == (0.0,) * 4
    assert found.scales == (pytest.approx(0.5, abs=0.03),) * 4


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["platt", "temperature", "none"]), st.floats(0, 0.1))
def test_scales_are_above_zero_whatever_the_labels(seed: int, method: str, share: float) -> None:
    chance = np.random.default_rng(seed)
    logits, labels = chance.normal(0, 3, (60, 3)), (chance.random((60, 3)) < share).astype(float)
    found = _fit(logits, labels, method=method)
    assert min(found.scales) > 0
    assert np.isfinite([*found.scales, *found.offsets]).all()


def test_logits_that_point_the_wrong_way_are_not_turned_around() -> None:
    logits, labels = _drawn(seed=3, rows=500, scale=-1.0, offset=0.0)
    assert min(_fit(logits, labels).scales) > 0


def test_a_rare_label_leans_on_the_others_and_a_frequent_one_does_not() -> None:
    logits, labels = _drawn(seed=4, rows=4000, scale=1.0, offset=0.0)
    sharp_logits, sharp = _drawn(seed=5, rows=4000, scale=3.0, offset=0.0)
    rare = np.where(np.cumsum(sharp[:, :1], axis=0) <= 4, sharp[:, :1], 0.0)
    joined_logits = np.concatenate([logits, sharp_logits[:, :2]], axis=1)
    joined = np.concatenate([labels, rare, sharp[:, 1:2]], axis=1)
    alone, held = (_fit(joined_logits, joined, shrinkage=rows).scales for rows in (0, 50))
    assert abs(held[4] - held[0]) < 0.5 * abs(alone[4] - held[0])
    assert held[5] == pytest.approx(alone[5], rel=0.05)


def test_the_mean_probability_is_the_share_of_rows() -> None:
    logits, labels = _drawn(seed=6, rows=3000, scale=0.8, offset=-3.0)
    calibrated = probabilities_from_logits(_fit(logits, labels).logits(logits))
    np.testing.assert_allclose(calibrated.mean(0), labels.mean(0), atol=2e-3)


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    probabilities = np.repeat(np.array([[0.1], [0.5], [0.9]]), 1000, axis=0)
    labels = np.concatenate([np.arange(1000) < 1000 * each for each in (0.1, 0.5, 0.9)])[:, None].astype(float)
    assert expected_calibration_errors(probabilities, labels, bins=3)[0] == pytest.approx(0.0)
    assert expected_calibration_errors(probabilities + 0.05, labels, bins=3)[0] == pytest.approx(0.05)
    assert brier_scores(labels, labels)[0] == 0.0


@given(st.integers(0, 1000), st.integers(1, 40))
def test_calibration_error_lies_between_nothing_and_one(seed: int, rows: int) -> None:
    chance = np.random.default_rng(seed)
    probabilities, labels = chance.random((rows, 28)), (chance.random((rows, 28)) < 0.3).astype(float)
    scores = calibration_scores(probabilities, labels)
    assert 0.0 <= scores["calibration_error"] <= 1.0
    assert sum(cells for _, _, cells in reliability_curve(probabilities, labels)) == labels.size


def test_a_bin_of_the_reliability_curve_begins_at_its_lower_edge() -> None:
    probabilities = np.array([[0.3], [0.3999], [0.6], [0.7], [1.0]])
    curve = reliability_curve(probabilities, np.array([[1.0], [0.0], [0.0], [1.0], [1.0]]))
    assert [(round(foretold, 2), true, cells) for foretold, true, cells in curve] == [
        (0.35, 0.5, 2),
        (0.6, 0.0, 1),
        (0.7, 1.0, 1),
        (1.0, 1.0, 1),
    ]


def _save(folder, name, *, seed, rows, offset):
    logits, labels = _drawn(seed=seed, rows=rows, scale=0.7, offset=offset, labels=28)
    np.savez(folder / f"{name}.npz", logits=logits.astype(np.float32), labels=labels.astype(np.float32))


def test_the_stage_lowers_the_error_on_rows_it_has_not_seen_and_never_reads_test_or_reporting(tmp_path) -> None:
    predicted, output = tmp_path / "predict", tmp_path / "calibrate"
    predicted.mkdir()
    output.mkdir()
    _save(predicted, "validation", seed=7, rows=1200, offset=-2.0)
    _save(predicted, "support_tuning", seed=8, rows=300, offset=-1.5)
    for unread in ("test", "support_reporting"):
        (predicted / f"{unread}.npz").write_bytes(b"not to be read")
    outcome = calibrate(CalibrationConfig(), predicted=predicted, output=output, seed=0)
    assert set(outcome) == {"validation", "support_tuning"}
    for each in outcome.values():
        assert each["after"] < 0.5 * each["before"]
    report = json.loads((output / "calibration.json").read_text("utf-8"))
    assert tuple(report["labels"]) == GOEMOTIONS_LABELS
    assert all(each["scale"] > 0 for each in report["labels"].values())


def test_both_domains_weigh_the_same_however_many_rows_they_have(tmp_path) -> None:
    _save(tmp_path, "validation", seed=9, rows=4000, offset=-2.0)
    _save(tmp_path, "support_tuning", seed=10, rows=500, offset=0.0)
    config = CalibrationConfig(folds=2, shrinkage=0)
    calibrate(config, predicted=tmp_path, output=tmp_path, seed=0)
    few = read_calibration(tmp_path)
    with np.load(tmp_path / "support_tuning.npz") as saved:
        repeated = {name: np.repeat(saved[name], 8, axis=0) for name in saved}
    np.savez(tmp_path / "support_tuning.npz", **repeated)
    calibrate(config, predicted=tmp_path, output=tmp_path, seed=0)
    many = read_calibration(tmp_path)
    np.testing.assert_allclose(few.offsets, many.offsets, atol=0.02)
    np.testing.assert_allclose(few.scales, many.scales, atol=0.02)


def test_no_calibration_is_none(tmp_path) -> None:
    _save(tmp_path, "validation", seed=11, rows=100, offset=0.0)
    outcome = calibrate(CalibrationConfig(method="none"), predicted=tmp_path, output=tmp_path, seed=0)
    assert outcome["validation"]["before"] == outcome["validation"]["after"]
    assert read_calibration(tmp_path) is None
