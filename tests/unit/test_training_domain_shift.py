import numpy as np
import pytest

from training.data.rows import Row, write_rows
from training.evaluation.saved_logits import Scored
from training.evaluation.support_chats import HOSTILE, columns
from training.finetune.answers import TAUGHT_ROWS, Answers, known_answers
from training.finetune.domain_shift import find_shift, read_shift, write_shift
from worker.core.labels import GOEMOTIONS_LABELS
from worker.core.scoring import probabilities_from_logits

ANGER, JOY, GRIEF, NEUTRAL = (GOEMOTIONS_LABELS.index(label) for label in ("anger", "joy", "grief", "neutral"))


def _tuning(*, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose anger and joy are right exactly where they are above `cut`, grief on too few rows to tell."""
    chance = np.random.default_rng(3)
    logits = np.full((600, 28), -6.0)
    labels = np.zeros((600, 28), np.float32)
    for start, label in ((0, ANGER), (200, JOY)):
        logits[:, label] = cut - chance.uniform(0.3, 2.0, 600)
        logits[start : start + 100, label] = cut + chance.uniform(0.3, 2.0, 100)
        labels[start : start + 100, label] = 1
    labels[:3, GRIEF] = 1
    labels[:, NEUTRAL] = labels.sum(1) == 0
    return logits, labels


@pytest.mark.parametrize("cut", [-1.5, 0.0, 1.2])
def test_shifted_answers_are_decided_by_the_given_thresholds(cut: float) -> None:
    logits, labels = _tuning(cut=cut)
    thresholds = np.full(28, 0.5)
    shift = find_shift(Scored(probabilities_from_logits(logits), labels), thresholds, max_false_alarms=0.01)
    decided = probabilities_from_logits(logits + shift) >= thresholds
    for label in (ANGER, JOY):
        assert (decided[:, label] == labels[:, label].astype(bool)).mean() > 0.99
    assert shift[GRIEF] == 0
    assert not (decided[:, columns(HOSTILE)].any(1) & (labels[:, ANGER] == 0)).mean() > 0.01


def test_the_shift_concerns_the_corpora_and_their_variations_alone(tmp_path) -> None:
    sources = ("goemotions_ru", "goemotions_ru_varied", "support", "support_varied")
    rows = [Row("текст", ("anger",), source) for source in sources]
    assert not read_shift(tmp_path, rows).any()
    shift = np.zeros(28)
    shift[ANGER] = 0.75
    write_shift(shift, tmp_path)
    assert read_shift(tmp_path, rows)[:, ANGER].tolist() == [0, 0, 0.75, 0.75]


def test_answers_that_were_aligned_are_reused_as_the_teacher_gave_them(tmp_path) -> None:
    rows = [Row("раз", (), "goemotions_ru"), Row("два", (), "support")]
    shift = np.zeros(28)
    shift[ANGER] = 0.75
    write_shift(shift, tmp_path)
    write_rows(tmp_path / TAUGHT_ROWS, rows)
    keys = np.array([b"1", b"2"], "S32")
    Answers((np.ones((2, 28)) + read_shift(tmp_path, rows)).astype(np.float16), np.zeros((2, 4), np.float16), keys).write(
        tmp_path
    )
    known = known_answers(keys[::-1], [tmp_path])
    assert {number: row for number, (_, row) in known.items()} == {0: 1, 1: 0}
    assert all((earlier.logits[row] == 1).all() for earlier, row in known.values())
