from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, precision_recall_fscore_support

from training.config import ThresholdConfig
from training.evaluation.metrics import averages, bootstrap_interval, label_scores, macro_f1, micro_f1, weighted_f1
from training.evaluation.saved_logits import Scored
from training.evaluation.scores import union_scores
from training.evaluation.support_chats import HOSTILE, columns, support_scores
from training.thresholds.choose import choose, read_thresholds
from training.thresholds.hostile import HostileLimits, move_hostile_thresholds
from training.thresholds.search import GRID, best_shared_threshold, best_thresholds, choose_thresholds, shrunk_thresholds
from worker.core.labels import GOEMOTIONS_LABELS

CELLS = hnp.arrays(np.bool_, (20, 5))
PROBABILITIES = hnp.arrays(np.float64, (20, 5), elements=st.integers(0, 10_000).map(lambda n: n / 10_000))


@given(CELLS, CELLS)
def test_scores_are_sklearns(labels: np.ndarray, predicted: np.ndarray) -> None:
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, zero_division=0)
    scores = label_scores(labels, predicted)
    for ours, theirs in ((scores.precision, precision), (scores.recall, recall), (scores.f1, f1), (scores.support, support)):
        np.testing.assert_allclose(ours, theirs)
    for average, ours in (("macro", macro_f1), ("micro", micro_f1), ("weighted", weighted_f1)):
        assert ours(labels, predicted) == pytest.approx(f1_score(labels, predicted, average=average, zero_division=0))
        averaged = precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)[:3]
        assert tuple(averages(labels, predicted)[average].values()) == pytest.approx(averaged, abs=1e-4)


@given(PROBABILITIES, CELLS)
def test_no_threshold_of_the_grid_beats_the_best_one(probabilities: np.ndarray, labels: np.ndarray) -> None:
    best = best_thresholds(probabilities, labels)
    reached = label_scores(labels, probabilities >= best).f1
    for threshold in GRID[::7]:
        assert (label_scores(labels, probabilities >= threshold).f1 <= reached + 1e-9).all()


@given(PROBABILITIES, CELLS, st.floats(0, 200), st.integers(0, 30))
def test_shrunk_thresholds_lie_between_their_own_and_the_shared_one(
    probabilities: np.ndarray, labels: np.ndarray, shrinkage: float, min_support: int
) -> None:
    own, shared = best_thresholds(probabilities, labels), best_shared_threshold(probabilities, labels)
    shrunk = shrunk_thresholds(probabilities, labels, shrinkage=shrinkage, min_support=min_support)
    assert (shrunk >= np.minimum(own, shared) - 1e-3).all()
    assert (shrunk <= np.maximum(own, shared) + 1e-3).all()
    assert (shrunk[labels.sum(0) < min_support] == pytest.approx(shared)) if min_support > 20 else True


def test_no_shrinkage_leaves_each_label_its_own_threshold() -> None:
    chance = np.random.default_rng(0)
    labels, probabilities = chance.random((300, 4)) < 0.3, chance.random((300, 4)).round(4)
    shrunk = shrunk_thresholds(probabilities, labels, shrinkage=0, min_support=0)
    np.testing.assert_allclose(shrunk, best_thresholds(probabilities, labels), atol=1e-3)


def test_ties_take_the_middle_threshold() -> None:
    probabilities, labels = np.array([[0.2], [0.6]]), np.array([[0], [1]])
    assert best_thresholds(probabilities, labels)[0] == pytest.approx(0.405)


def test_a_probability_equal_to_its_threshold_counts() -> None:
    labels = np.array([[1], [0]])
    probabilities = np.array([[0.35], [0.3499]])
    assert macro_f1(labels, probabilities >= GRID[34]) == 1.0


def test_cross_validation_prefers_shrinkage_where_labels_are_rare() -> None:
    chance = np.random.default_rng(1)
    labels = chance.random((800, 12)) < 0.015
    probabilities = np.clip(0.25 + 0.3 * labels + chance.normal(0, 0.12, labels.shape), 0, 1).round(4)
    choice = choose_thresholds(probabilities, labels, shrinkage=None, min_support=0, folds=4, seed=0)
    assert choice.expected[f"shrinkage {choice.shrinkage:g}"] == max(
        value for name, value in choice.expected.items() if name.startswith("shrinkage")
    )
    assert choice.shrinkage > 0


def test_the_bootstrap_interval_holds_the_score_and_repeats_with_its_seed() -> None:
    chance = np.random.default_rng(2)
    labels, predicted = chance.random((200, 3)) < 0.4, chance.random((200, 3)) < 0.4
    low, high = bootstrap_interval(labels, predicted, score=macro_f1, seed=3, draws=200)
    assert low < macro_f1(labels, predicted) < high
    assert bootstrap_interval(labels, predicted, score=macro_f1, seed=3, draws=200) == (low, high)


def _cells(*rows: tuple[str, ...]) -> np.ndarray:
    return np.array([[label in row for label in GOEMOTIONS_LABELS] for row in rows])


def test_support_scores_count_each_row_where_it_belongs() -> None:
    labels = _cells(("anger",), ("disgust", "sadness"), ("neutral",), ("joy",), ("grief",), ("fear", "curiosity"))
    predicted = _cells(("annoyance",), ("sadness",), ("anger",), ("joy",), ("sadness",), ("fear", "anger"))
    scores = support_scores(labels, predicted)
    assert (scores["hostile_rows"], scores["hostile_recall"]) == (2, 0.5)
    assert (scores["calm_rows"], scores["false_alarms"]) == (2, 0.5)
    assert (scores["distress_rows"], scores["distress_found"], scores["distress_as_hostile"]) == (2, 1.0, 0.5)
    assert scores["distress_clean"] == 0.5


def _scored(*, seed: int, rows: int = 400) -> Scored:
    chance = np.random.default_rng(seed)
    labels = (chance.random((rows, 28)) < 0.1).astype(np.float32)
    labels[labels.sum(1) == 0, -1] = 1
    return Scored(np.clip(0.2 + 0.4 * labels + chance.normal(0, 0.15, labels.shape), 0.001, 0.999).round(4), labels)


def test_only_hostile_thresholds_are_moved() -> None:
    thresholds = np.full(28, 0.3)
    limits = HostileLimits(max_false_alarms=0.01, max_macro_loss=1.0)
    moved = move_hostile_thresholds(thresholds, _scored(seed=1), validation=_scored(seed=2), limits=limits)
    assert (moved[columns(HOSTILE)] != 0.3).any()
    assert (moved[~columns(HOSTILE)] == 0.3).all()


@settings(max_examples=5)
@given(st.integers(0, 1000), st.sampled_from([0.02, 0.1, 0.5]))
def test_moved_thresholds_find_more_or_alarm_less(seed: int, limit: float) -> None:
    tuning, validation = _scored(seed=seed), _scored(seed=seed + 1)
    thresholds = np.full(28, 0.3)
    limits = HostileLimits(max_false_alarms=limit, max_macro_loss=1.0)
    moved = move_hostile_thresholds(thresholds, tuning, validation=validation, limits=limits)
    before, after = (support_scores(tuning.labels, tuning.probabilities >= each) for each in (thresholds, moved))
    is_better = after["hostile_recall"] >= before["hostile_recall"] or after["false_alarms"] < before["false_alarms"]
    assert is_better
    assert before["false_alarms"] > limit or after["false_alarms"] <= limit


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_moving_costs_validation_no_more_than_allowed(seed: int) -> None:
    tuning, validation = _scored(seed=seed), _scored(seed=seed + 1)
    thresholds = best_thresholds(validation.probabilities, validation.labels)
    limits = HostileLimits(max_false_alarms=0.01, max_macro_loss=0.004)
    moved = move_hostile_thresholds(thresholds, tuning, validation=validation, limits=limits)
    before, after = (macro_f1(validation.labels, validation.probabilities >= each) for each in (thresholds, moved))
    assert before - after <= 0.004 + 1e-9


def test_the_union_protocol_is_at_least_as_good_as_a_shared_half() -> None:
    union = union_scores(_scored(seed=5), _scored(seed=6))
    assert union["macro_f1_tuned"] >= union["macro_f1_at_half"]


def test_thresholds_come_from_saved_logits(tmp_path: Path) -> None:
    predicted, chosen = (tmp_path / name for name in ("predict", "thresholds"))
    for folder in (predicted, chosen):
        folder.mkdir()
    for split in ("validation", "test", "support_tuning", "support_reporting"):
        scored = _scored(seed=len(split))
        logits = np.log(scored.probabilities / (1 - scored.probabilities)).astype(np.float32)
        np.savez(predicted / f"{split}.npz", logits=logits, labels=scored.labels)
    choose(ThresholdConfig(folds=3, max_false_alarms=0.1), predicted=predicted, output=chosen, seed=0)
    assert read_thresholds(chosen).shape == (28,)
