from hypothesis import given
from hypothesis import strategies as st

from worker.core.micro_batch import plan_micro_batches

counts = st.lists(st.integers(0, 200), max_size=60)


@given(counts, st.integers(1, 500), st.integers(1, 16))
def test_every_text_is_in_exactly_one_micro_batch_within_the_budget(token_counts, budget, max_texts):
    plan = plan_micro_batches(token_counts, max_padded_tokens=budget, max_texts=max_texts)
    assert sorted(index for each in plan for index in each) == list(range(len(token_counts)))
    for micro_batch in plan:
        assert 1 <= len(micro_batch) <= max_texts
        longest = max(token_counts[index] for index in micro_batch)
        assert len(micro_batch) == 1 or longest * len(micro_batch) <= budget


@given(counts)
def test_texts_of_like_token_count_are_together(token_counts):
    plan = plan_micro_batches(token_counts, max_padded_tokens=100, max_texts=4)
    flat = [token_counts[index] for each in plan for index in each]
    assert flat == sorted(token_counts, reverse=True)


def test_nothing_is_planned_for_nothing():
    assert plan_micro_batches([], max_padded_tokens=10, max_texts=1) == []
