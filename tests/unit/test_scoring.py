import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.scoring import (
    PROBABILITY_DECIMALS,
    Calibration,
    Scorer,
    probabilities_from_logits,
    rescale_to_threshold,
)

fractions = st.floats(0.0, 1.0)
thresholds = st.floats(0.01, 1.0)
logits = st.floats(-15.0, 15.0)
scales = st.floats(0.05, 5.0)
offsets = st.floats(-8.0, 8.0)


def test_probabilities_are_the_rounded_sigmoid_and_survive_huge_logits():
    found = probabilities_from_logits(np.array([0.0, 1.0, -1000.0, 1000.0], dtype=np.float32))
    assert found.tolist() == [0.5, round(1 / (1 + math.exp(-1)), 4), 0.0, 1.0]


def heard(probabilities, order, *, thresholds, weights=None):
    """Score logits whose sigmoids are these probabilities."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-np.array(probabilities, dtype=np.float64))
    return Scorer(order, thresholds=thresholds, weights=weights or {}).score(np.clip(logits, -40.0, 40.0))


def test_labels_at_the_threshold_count_and_the_likeliest_comes_first():
    found = heard([0.4, 0.9, 0.39], ["anger", "joy", "fear"], thresholds=[0.4, 0.5, 0.4])
    assert [each.label for each in found.emotions] == ["joy", "anger"]


def test_equal_labels_come_in_label_order():
    found = heard([0.4, 0.9, 0.9], ["anger", "joy", "fear"], thresholds=[0.4, 0.5, 0.4])
    assert [each.label for each in found.emotions] == ["joy", "fear", "anger"]


def rescaled(probability, threshold):
    return float(rescale_to_threshold(np.array([probability]), np.array([threshold]))[0])


def test_half_is_exactly_the_threshold():
    assert rescaled(0.3, 0.3) == 0.5
    assert rescaled(0.15, 0.3) == pytest.approx(0.25)
    assert rescaled(0.65, 0.3) == pytest.approx(0.75)
    assert rescaled(1.0, 1.0) == 0.5


@given(fractions, fractions, thresholds)
def test_rescaling_keeps_order_and_stays_in_range(low, high, threshold):
    low, high = sorted((low, high))
    assert 0.0 <= rescaled(low, threshold) <= rescaled(high, threshold) <= 1.0


@given(st.lists(logits, min_size=3, max_size=3), st.lists(thresholds, min_size=3, max_size=3))
def test_negativity_is_over_a_half_only_when_a_counted_label_is_over_its_threshold(row, cuts):
    scorer = Scorer(["anger", "sadness", "disgust"], thresholds=cuts, weights={"anger": 1.0, "disgust": 1.0})
    score = scorer.score(np.array(row))
    assert 0.0 <= score.negativity <= 1.0
    if score.negativity > 0.5:
        assert score.probabilities[0] > cuts[0] or score.probabilities[2] > cuts[2]


def test_negativity_ignores_emotions_that_the_policy_does_not_count():
    assert heard([0.99, 0.0], ["sadness", "anger"], thresholds=[0.3, 0.3], weights={"anger": 1.0}).negativity == 0.0
    assert heard([0.99, 0.0], ["sadness", "anger"], thresholds=[0.3, 0.3]).negativity == 0.0


def test_a_weight_scales_negativity():
    assert heard([1.0], ["anger"], thresholds=[0.3], weights={"anger": 0.6}).negativity == 0.6


@given(st.lists(st.lists(logits, min_size=3, max_size=3), max_size=6), st.lists(thresholds, min_size=3, max_size=3))
def test_scores_of_several_rows_are_those_of_each(rows, cuts):
    calibration = Calibration((0.7, 1.0, 1.3), (0.1, 0.0, -0.4))
    scorer = Scorer(
        ["anger", "joy", "disgust"], thresholds=cuts, weights={"anger": 1.0, "disgust": 0.9}, calibration=calibration
    )
    arrays = [np.array(row, dtype=np.float32) for row in rows]
    assert scorer.score_all(arrays) == [scorer.score(row) for row in arrays]


def test_scorer_puts_labels_negativity_and_probabilities_together():
    score = Scorer(["anger", "joy"], thresholds=[0.5, 0.5], weights={"anger": 1.0}).score(np.array([3.0, -3.0]))
    assert [each.label for each in score.emotions] == ["anger"]
    assert score.negativity > 0.9
    assert len(score.probabilities) == 2


def _score(logit, threshold, calibration):
    scorer = Scorer(["anger"], thresholds=[threshold], weights={"anger": 1.0}, calibration=calibration)
    return scorer.score(np.array([logit], dtype=np.float32))


def _around(threshold):
    """Logits at the threshold, and so near it that four decimals can't tell them from it."""
    at = math.log(threshold / (1 - threshold)) if threshold < 1 else 12.0
    return st.floats(-1e-2, 1e-2).map(lambda step: at + step)


@given(st.data(), st.integers(1, 1000).map(lambda n: n / 1000), scales, offsets)
def test_calibration_never_changes_a_decision(data, threshold, scale, offset):
    logit = data.draw(logits | _around(threshold))
    plain = _score(logit, threshold, None)
    calibrated = _score(logit, threshold, Calibration((scale,), (offset,)))
    assert [each.label for each in calibrated.emotions] == [each.label for each in plain.emotions]


@given(st.data(), st.integers(1, 1000).map(lambda n: n / 1000), scales, offsets)
def test_published_numbers_tell_the_decision_by_themselves(data, threshold, scale, offset):
    calibration = Calibration((scale,), (offset,))
    score = _score(data.draw(logits | _around(threshold)), threshold, calibration)
    probability = score.probabilities[0]
    cut = float(calibration.thresholds(np.array([threshold]))[0])
    for each in (probability, cut):
        assert each == round(each, PROBABILITY_DECIMALS)
        assert 0.0 <= each <= 1.0
    assert cut > 0
    assert bool(score.emotions) == (probability >= cut)
    if score.emotions:
        assert (score.emotions[0].probability, score.emotions[0].threshold) == (probability, cut)
        assert score.negativity >= 0.5
    else:
        assert score.negativity <= 0.5


@given(logits, logits, st.integers(1, 1000).map(lambda n: n / 1000), scales, offsets)
def test_calibrated_probabilities_keep_the_order_of_logits(low, high, threshold, scale, offset):
    low, high = sorted((low, high))
    calibration = Calibration((scale,), (offset,))
    assert _score(low, threshold, calibration).probabilities <= _score(high, threshold, calibration).probabilities


def test_a_calibration_of_scale_one_and_no_offset_publishes_the_plain_numbers():
    same = Calibration((1.0,), (0.0,))
    for logit in (-3.0, -0.1, 0.0, 0.4, 7.0):
        assert _score(logit, 0.25, same) == _score(logit, 0.25, None)


def test_a_calibrated_probability_is_the_sigmoid_of_the_scaled_logit():
    score = _score(2.0, 0.5, Calibration((0.5,), (-2.0,)))
    assert score.probabilities == (round(1 / (1 + math.exp(1)), 4),)
    assert score.emotions[0].threshold == round(1 / (1 + math.exp(2)), 4)
