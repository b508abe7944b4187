import pytest

from worker.core.labels import AMBIGUOUS, GOEMOTIONS_LABELS, NEGATIVE, NEUTRAL, POSITIVE, tone_of


def test_groups_and_neutral_make_up_all_28_labels_without_overlap():
    assert len(GOEMOTIONS_LABELS) == 28
    assert sorted([*POSITIVE, *NEGATIVE, *AMBIGUOUS, NEUTRAL]) == sorted(GOEMOTIONS_LABELS)


@pytest.mark.parametrize(
    ("labels", "tone"),
    [
        ([], "neutral"),
        (["neutral"], "neutral"),
        (["anger"], "negative"),
        (["gratitude", "joy"], "positive"),
        (["gratitude", "annoyance"], "mixed"),
        (["confusion"], "ambiguous"),
        (["neutral", "curiosity"], "ambiguous"),
        (["confusion", "anger"], "negative"),
        (["surprise", "joy", "neutral"], "positive"),
    ],
)
def test_tone_follows_from_the_labels_groups(labels, tone):
    assert tone_of(labels) == tone
