"""Temperature and thresholds."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from renshu_tasks.common.calibration import best_threshold, fit_temperature


def test_the_temperature_that_was_put_in_is_found() -> None:
    """Labels drawn from softmax(z): logits 2.5 z need T = 2.5."""
    torch.manual_seed(0)
    logits = torch.randn(20_000, 5) * 1.5
    labels = torch.distributions.Categorical(logits=logits).sample()
    assert fit_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.05)


def test_the_temperature_lowers_the_loss_for_one_and_several_labels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(300, 4) * 6
    labels = torch.distributions.Categorical(logits=logits / 4).sample()
    temperature = fit_temperature(logits, labels)
    assert F.cross_entropy(logits / temperature, labels) < F.cross_entropy(logits, labels)
    many = torch.bernoulli((logits / 4).sigmoid())
    scale = fit_temperature(logits, many)
    loss = F.binary_cross_entropy_with_logits
    assert loss(logits / scale, many) < loss(logits, many)
    assert scale == pytest.approx(4, rel=0.25)


def test_a_validation_part_without_mistakes_does_not_give_endless_confidence() -> None:
    labels = torch.arange(200) % 4
    logits = F.one_hot(labels, 4) * 4.0
    temperature = fit_temperature(logits, labels)
    assert 0.3 < temperature <= 1.0


def test_the_threshold_has_the_best_f1() -> None:
    torch.manual_seed(0)
    labels = (torch.rand(150) < 0.2).long()
    scores = (torch.randn(150) + 1.5 * labels - 2).sigmoid()
    found = f1_score(labels, scores >= best_threshold(scores, labels))
    every = max(f1_score(labels, scores >= t) for t in scores.tolist())
    assert found == every


def test_equal_scores_are_not_parted_and_ties_go_to_the_middle() -> None:
    assert best_threshold(torch.tensor([0.2, 0.2, 0.9]), torch.tensor([0, 1, 1])) == pytest.approx(
        0.1
    )
    assert best_threshold(torch.tensor([0.2, 0.6]), torch.tensor([0, 1])) == pytest.approx(0.4)


def test_without_a_positive_sample_the_threshold_is_a_half() -> None:
    assert best_threshold(torch.tensor([0.2, 0.6]), torch.tensor([0, 0])) == 0.5
