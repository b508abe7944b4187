import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.config import AsymmetricConfig, DistilConfig, LossConfig, OptimiserConfig
from training.data.clean import text_key
from training.data.rows import Row
from training.finetune.averaging import AverageLastSteps
from training.finetune.encoding import BucketBatches, batches_by_token_count, pad
from training.finetune.loss import DistilTargets, distil_loss, label_loss, positive_weights
from training.finetune.noise import add_noise
from training.finetune.student import Embeddings, reduce_embeddings
from training.finetune.trainer import parameter_groups
from training.finetune.variations import vary

SENTENCE = "Верните, пожалуйста, деньги за заказ: курьер так и не приехал, ещё жду!"


def test_positive_weights_fall_with_frequency() -> None:
    labels = np.zeros((100, 3), np.float32)
    labels[:25, 0], labels[:4, 1] = 1, 1
    np.testing.assert_allclose(positive_weights(labels, LossConfig(pos_weight="inverse_sqrt")), [2, 5, 10], rtol=1e-6)
    np.testing.assert_allclose(positive_weights(labels, LossConfig(pos_weight="inverse")), [4, 25, 100], rtol=1e-6)
    np.testing.assert_allclose(positive_weights(labels, LossConfig(pos_weight="none")), [1, 1, 1])
    effective = positive_weights(labels, LossConfig(pos_weight="effective_number"))
    assert effective[0] < effective[1] < effective[2]
    assert effective.mean() == pytest.approx(1)


def test_the_label_loss_is_weighted_binary_cross_entropy() -> None:
    logits, labels = torch.tensor([[0.3, -1.2]]), torch.tensor([[1.0, 0.0]])
    pos_weight = torch.tensor([3.0, 7.0])
    p = torch.sigmoid(logits)
    expected = (-3 * torch.log(p[0, 0]) - torch.log(1 - p[0, 1])) / 2
    assert torch.isclose(label_loss(logits, labels, pos_weight=pos_weight, config=LossConfig()), expected)


def test_focal_loss_counts_easy_cells_less() -> None:
    labels, weight = torch.ones(1, 1), torch.ones(1)
    for logit, ratio in ((4.0, 0.01), (-4.0, 0.95)):
        logits = torch.full((1, 1), logit)
        focal = label_loss(logits, labels, pos_weight=weight, config=LossConfig(focal_gamma=2.0))
        plain = label_loss(logits, labels, pos_weight=weight, config=LossConfig())
        assert focal < plain
        assert (focal / plain < ratio) == (logit > 0)


def _asymmetric(logit: float, label: float, weight: float = 1.0, **settings: float) -> torch.Tensor:
    config = LossConfig(asymmetric=AsymmetricConfig(**settings))
    return label_loss(torch.full((1, 1), logit), torch.full((1, 1), label), pos_weight=torch.full((1,), weight), config=config)


def test_the_asymmetric_loss_is_the_paper_s() -> None:
    p = torch.sigmoid(torch.tensor(0.7))
    positive = -2.0 * (1 - p) ** 1.5 * torch.log(p)
    negative = -((p - 0.1) ** 3) * torch.log(1 - (p - 0.1))
    settings = {"gamma_pos": 1.5, "gamma_neg": 3.0, "margin": 0.1}
    assert torch.isclose(_asymmetric(0.7, 1.0, 2.0, **settings), positive)
    assert torch.isclose(_asymmetric(0.7, 0.0, 2.0, **settings), negative)


def test_the_asymmetric_loss_without_its_settings_is_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels, weight = torch.randn(9, 4) * 9, torch.randint(0, 2, (9, 4)).float(), torch.rand(4) + 1
    neither = LossConfig(asymmetric=AsymmetricConfig(gamma_pos=0, gamma_neg=0, margin=0))
    plain = label_loss(logits, labels, pos_weight=weight, config=LossConfig())
    assert torch.isclose(label_loss(logits, labels, pos_weight=weight, config=neither), plain)


def test_the_asymmetric_loss_forgives_negatives_below_the_margin() -> None:
    assert _asymmetric(-4.0, 0.0, margin=0.05) < 1e-7
    assert _asymmetric(-4.0, 0.0, margin=0.0, gamma_neg=0.0) > 1e-2


@pytest.mark.parametrize("logit", [-200.0, -3.0, 0.0, 200.0])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_the_asymmetric_loss_has_gradients_everywhere(logit: float, gamma: float, margin: float) -> None:
    config = LossConfig(asymmetric=AsymmetricConfig(gamma_pos=gamma, gamma_neg=gamma, margin=margin))
    logits = torch.full((1, 2), logit, requires_grad=True)
    loss = label_loss(logits, torch.tensor([[0.0, 1.0]]), pos_weight=torch.ones(2), config=config)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_two_losses_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        LossConfig(focal_gamma=1.0, asymmetric=AsymmetricConfig())


def test_distillation_begins_with_the_teachers_vectors_and_ends_with_its_decisions() -> None:
    torch.manual_seed(0)
    logits, projected = torch.randn(4, 28), torch.randn(4, 6)
    labels = torch.randint(0, 2, (4, 28)).float()
    targets = DistilTargets(labels, torch.ones(4), torch.ones(4, 28), torch.rand(4, 28), torch.randn(4, 6))

    def loss(progress: float) -> float:
        return distil_loss(logits, projected, targets=targets, progress=progress, config=DistilConfig()).item()

    hard = nn.functional.binary_cross_entropy_with_logits(logits, targets.labels).item()
    soft = nn.functional.binary_cross_entropy_with_logits(logits, targets.probabilities).item()
    apart = nn.functional.mse_loss(projected, targets.vectors).item()
    assert loss(0.0) == pytest.approx(0.3 * soft + apart, rel=1e-5)
    assert loss(0.35) == pytest.approx(0.3 * hard + 1.5 * soft + 0.3 * apart, rel=1e-5)
    assert loss(1.0) == pytest.approx(loss(0.35), rel=1e-5)


def test_labels_of_unlabelled_texts_count_for_nothing() -> None:
    torch.manual_seed(0)
    logits, projected, probabilities, vectors = torch.randn(2, 28), torch.randn(2, 6), torch.rand(2, 28), torch.randn(2, 6)

    def loss(labels: torch.Tensor) -> float:
        targets = DistilTargets(labels, torch.tensor([1.0, 0.0]), torch.ones(2, 28), probabilities, vectors)
        return distil_loss(logits, projected, targets=targets, progress=1.0, config=DistilConfig()).item()

    first, second = torch.zeros(2, 28), torch.zeros(2, 28)
    first[0, 3], second[1, 3] = 1, 1
    assert loss(second) == loss(torch.zeros(2, 28))
    assert loss(first) != loss(torch.zeros(2, 28))


def test_variations_are_new_unlabelled_and_avoid_what_must_stay_unseen() -> None:
    rows = [Row(f"Где мой заказ {n}? Жду третий день, верните деньги!", ("anger",), "support") for n in range(9)]
    varied = vary(rows, count=5, seed=1, unseen=[])
    assert varied == vary(rows, count=5, seed=1, unseen=[])
    assert len(varied) > 20
    assert all(row.labels == () and row.source == "support_varied" for row in varied)
    keys = {text_key(row.text) for row in varied}
    assert len(keys) == len(varied)
    assert not keys & {text_key(row.text) for row in rows}
    assert text_key(varied[0].text) not in {
        text_key(row.text) for row in vary(rows, count=5, seed=1, unseen=[varied[0].text.upper()])
    }


def test_reduced_embeddings_have_the_width_and_spread_asked_for() -> None:
    torch.manual_seed(0)
    donor = Embeddings(torch.randn(200, 24) @ torch.randn(24, 24) + 3, torch.randn(16, 24), torch.randn(2, 24))
    reduced = reduce_embeddings(donor, width=10, std=0.05)
    assert (reduced.words.shape, reduced.positions.shape, reduced.token_types.shape) == ((200, 10), (16, 10), (2, 10))
    assert reduced.words.std().item() == pytest.approx(0.05, rel=0.01)
    assert reduced.words.mean(0).abs().max() < 1e-4


def test_reducing_keeps_the_axes_of_most_variance() -> None:
    torch.manual_seed(0)
    words = torch.randn(500, 8) * torch.tensor([9.0, 7.0, 5.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    reduced = reduce_embeddings(Embeddings(words, words[:4], words[:2]), width=3, std=1.0)
    centred = words - words.mean(0)
    ratio = torch.cdist(reduced.words[:50], reduced.words[:50]) / torch.cdist(centred[:50], centred[:50]).clamp(min=1e-9)
    off_diagonal = ratio[~torch.eye(50, dtype=torch.bool)]
    assert off_diagonal.std() / off_diagonal.mean() < 0.01


@given(st.integers(0, 2**32 - 1))
def test_noise_is_the_same_for_the_same_seed_and_keeps_words_recognisable(seed: int) -> None:
    noisy = add_noise(SENTENCE, seed=seed)
    assert noisy == add_noise(SENTENCE, seed=seed)
    clean_words, noisy_words = _words(SENTENCE), _words(noisy)
    assert len(noisy_words) == len(clean_words)
    changed = [(clean, said) for clean, said in zip(clean_words, noisy_words, strict=True) if clean != said]
    assert len(changed) <= 2
    assert all(clean[0] == said[0] and abs(len(clean) - len(said)) <= 1 for clean, said in changed)


def _words(text: str) -> list[str]:
    kept = "".join(letter if letter.isalnum() else " " for letter in text.lower().replace("ё", "е"))
    return kept.split()


def test_noise_of_many_seeds_is_of_many_kinds() -> None:
    noisy = {add_noise(SENTENCE, seed=seed) for seed in range(200)}
    assert SENTENCE.upper() in noisy
    assert any(text.islower() for text in noisy)
    assert any("," not in text for text in noisy)
    assert len(noisy) > 50


@pytest.mark.parametrize("text", ["", "!", "да", "😡😡", "ё", "https://x.y/z?q=1"])
def test_noise_survives_texts_without_words(text: str) -> None:
    for seed in range(50):
        assert isinstance(add_noise(text, seed=seed), str)


def _batches(*, seed: int = 0, share: float = 0.5) -> BucketBatches:
    counts = [3 + index % 20 for index in range(150)]
    repeats = np.array([1 + (index % 3 == 0) for index in range(150)])
    noisy = np.array([index % 2 == 0 for index in range(150)])
    return BucketBatches(
        lambda draw: counts[draw.row], batch_size=8, seed=seed, repeats=repeats, noisy=noisy, noise_share=share
    )


def test_an_epoch_draws_every_row_as_often_as_it_repeats() -> None:
    drawn = np.bincount([draw.row for batch in _batches() for draw in batch], minlength=150)
    assert drawn.tolist() == [1 + (index % 3 == 0) for index in range(150)]
    assert len(_batches()) == len(list(_batches()))


def test_noise_falls_on_its_share_of_the_rows_that_may_have_it() -> None:
    draws = [draw for epoch in range(10) for draw in _epoch(epoch)]
    noisy = [draw for draw in draws if draw.noise_seed is not None]
    assert all(draw.row % 2 == 0 for draw in noisy)
    assert 0.4 < len(noisy) / sum(draw.row % 2 == 0 for draw in draws) < 0.6


def _epoch(epoch: int) -> list:
    batches = _batches()
    batches.set_epoch(epoch)
    return [draw for batch in batches for draw in batch]


def test_batches_repeat_with_seed_and_epoch_and_differ_between_epochs() -> None:
    assert _epoch(1) == _epoch(1)
    assert _epoch(1) != _epoch(2)


def test_batches_hold_texts_of_similar_token_counts() -> None:
    spreads = [max(3 + draw.row % 20 for draw in batch) - min(3 + draw.row % 20 for draw in batch) for batch in _batches()]
    assert np.median(spreads) <= 2


@given(st.lists(st.lists(st.integers(5, 9), min_size=1, max_size=6), min_size=1, max_size=20), st.integers(1, 7))
def test_asking_covers_every_text_once(token_ids: list[list[int]], batch_size: int) -> None:
    rows = [row for batch in batches_by_token_count(token_ids, batch_size=batch_size) for row in batch]
    assert sorted(rows) == list(range(len(token_ids)))


def test_padding_marks_only_real_tokens() -> None:
    padded = pad([[5, 6, 7], [8]], pad_id=1)
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 1, 1]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_parameter_groups_cover_all_trainable_weights_and_spare_embeddings_and_biases_decay() -> None:
    model = nn.ModuleDict({"embeddings": nn.Embedding(4, 3), "body": nn.Linear(3, 3), "projection": nn.Linear(3, 2)})
    model["body"].bias.requires_grad = False
    config = OptimiserConfig(epochs=1, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.1)
    groups = parameter_groups(model, config, head_names=("projection.",))
    by_shape = {
        tuple(parameter.shape): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }
    assert by_shape == {(4, 3): (1e-4, 0.0), (3, 3): (1e-4, 0.1), (2, 3): (1e-3, 0.1), (2,): (1e-3, 0.0)}


def test_the_average_is_the_mean_over_the_last_steps() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = AverageLastSteps(model, share=0.5)
    for step in range(1, 101):
        model.weight.data.fill_(step)
        average.on_step_end(None, _State(step), None)
    assert average.averaged is not None
    assert average.averaged["weight"].item() == pytest.approx(np.mean([50, 60, 70, 80, 90, 100]))


class _State:
    max_steps = 100

    def __init__(self, global_step: int) -> None:
        self.global_step = global_step
