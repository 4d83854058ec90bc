"""Every figure against torchmetrics or scikit-learn, and intervals against what is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

from renshu_tasks.image_classification import metrics

CLASSES = ["a", "b", "c", "d"]


def sample(count: int = 300, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities [N, 4] that are right in about two thirds, labels, decisions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    logits = torch.randn(count, 4, generator=generator)
    logits[torch.arange(count), labels] += 1.5
    probabilities = logits.softmax(1)
    return probabilities, labels, probabilities.argmax(1)


def several(count: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """The same for several labels a picture."""
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(count, 4, generator=generator) < 0.3).float()
    probabilities = (torch.randn(count, 4, generator=generator) + 2 * labels - 1).sigmoid()
    return probabilities, labels, probabilities >= 0.5


def test_one_label_agrees_with_scikit_learn() -> None:
    probabilities, labels, predicted = sample()
    found = metrics.evaluate(probabilities, labels, predicted, CLASSES)
    y, p, scores = labels.numpy(), predicted.numpy(), probabilities.numpy()
    assert found["accuracy"]["value"] == pytest.approx(sklearn.accuracy_score(y, p))
    assert found["macro_f1"]["value"] == pytest.approx(sklearn.f1_score(y, p, average="macro"))
    area = sklearn.roc_auc_score(y, scores / scores.sum(1, keepdims=True), multi_class="ovr")
    assert found["auroc"]["value"] == pytest.approx(area)
    assert found["nll"] == pytest.approx(sklearn.log_loss(y, scores), rel=1e-5)
    for k in (1, 3):
        assert found["top_k"][str(k)] == sklearn.top_k_accuracy_score(y, scores, k=k)
    rows = sklearn.precision_recall_fscore_support(y, p)
    for k, row in enumerate(found["per_class"]):
        values = [row["precision"], row["recall"], row["f1"], row["support"]]
        assert values == pytest.approx([column[k] for column in rows])
    table = metrics.confusion_matrix(labels, predicted, 4)
    assert np.array_equal(table, sklearn.confusion_matrix(y, p))


def test_several_labels_agree_with_scikit_learn() -> None:
    probabilities, labels, predicted = several()
    found = metrics.evaluate(probabilities, labels, predicted, CLASSES)
    y, p = labels.numpy(), predicted.numpy()
    assert found["accuracy"]["value"] == pytest.approx(sklearn.accuracy_score(y, p))
    assert found["macro_f1"]["value"] == pytest.approx(sklearn.f1_score(y, p, average="macro"))
    area = sklearn.roc_auc_score(y, probabilities.numpy(), average="macro")
    assert found["auroc"]["value"] == pytest.approx(area)
    assert "top_k" not in found


def test_figures_agree_with_torchmetrics() -> None:
    from torchmetrics.functional import classification as peer

    probabilities, labels, predicted = sample(500, seed=4)
    found = metrics.evaluate(probabilities, labels, predicted, CLASSES)
    error = peer.multiclass_calibration_error(probabilities, labels, 4, n_bins=metrics.BINS)
    assert found["ece"]["value"] == pytest.approx(float(error), abs=1e-6)
    area = peer.multiclass_auroc(probabilities, labels, 4)
    assert found["auroc"]["value"] == pytest.approx(float(area), abs=1e-6)
    f1 = peer.multiclass_f1_score(probabilities, labels, 4, average="macro")
    assert found["macro_f1"]["value"] == pytest.approx(float(f1), abs=1e-6)
    assert found["top_k"]["3"] == pytest.approx(
        float(peer.multiclass_accuracy(probabilities, labels, 4, average="micro", top_k=3))
    )


def test_calibration_error_of_a_known_case() -> None:
    """80 decisions at 0.75 of which half are right, 20 at 0.95 all right: 0.8×0.25 + 0.2×0.05."""
    confidence = torch.tensor([0.75] * 80 + [0.95] * 20)
    correct = torch.tensor([True] * 40 + [False] * 40 + [True] * 20)
    figure = metrics._calibration_error(confidence, correct)(torch.ones(1, 100))
    assert float(figure) == pytest.approx(0.21, abs=1e-6)


def test_auroc_counts_ties_half() -> None:
    scores = torch.tensor([0.1, 0.5, 0.5, 0.5, 0.9, 0.2])
    labels = torch.tensor([0, 1, 0, 1, 1, 0]).bool()
    area = metrics._areas(scores[:, None], labels[:, None])(torch.ones(1, 6))
    assert float(area) == pytest.approx(sklearn.roc_auc_score(labels.numpy(), scores.numpy()))


def test_weighted_figures_equal_repeated_samples() -> None:
    """What the bootstrap relies on: a weight of 3 is the sample three times."""
    probabilities, labels, predicted = sample(60)
    counts = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(9))
    again = counts.nonzero()[:, 0].repeat_interleave(counts[counts > 0])
    whole = metrics.evaluate(probabilities[again], labels[again], predicted[again], CLASSES)
    truth, chosen = metrics._hot(labels, 4), metrics._hot(predicted, 4)
    weights = counts[None].float()
    confidence, correct = metrics.confidences(probabilities, labels, predicted)
    found = {
        "accuracy": metrics._accuracy(truth, chosen)(weights),
        "macro_f1": metrics._macro_f1(truth, chosen)(weights),
        "ece": metrics._calibration_error(confidence, correct)(weights),
        "auroc": metrics._areas(probabilities, truth)(weights).mean(),
    }
    for name, value in found.items():
        assert float(value) == pytest.approx(whole[name]["value"], abs=1e-6), name


def right_of(right: int, count: int, groups: Tensor | None = None) -> dict:
    """Figures of `count` decisions for the first of two classes, `right` of them right."""
    labels = (torch.arange(count) >= right).long()
    predicted = torch.zeros(count, dtype=torch.int64)
    probabilities = torch.tensor([[0.6, 0.4]]).expand(count, 2).contiguous()
    return metrics.evaluate(probabilities, labels, predicted, ["a", "b"], groups)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        # n / (n + z²) where all are right: 360 / 363.8415
        (360, 360, 0.989442, 1.0),
        (0, 360, 0.0, 0.010558),
        # by hand: (0.804802 ± 1.959964 √(0.0004 + 0.0000060023)) / 1.0096036
        (320, 400, 0.758030, 0.836263),
        # examples of Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_the_interval_of_accuracy_is_wilsons(
    right: int, count: int, low: float, high: float
) -> None:
    found = right_of(right, count)["accuracy"]
    assert found["value"] == pytest.approx(right / count)
    digits = 5e-5 if count in (263, 148) else 2e-6
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=digits)


@pytest.mark.parametrize("groups", [None, torch.arange(360) // 10])
def test_a_figure_that_no_resample_changes_has_no_interval(groups: Tensor | None) -> None:
    """All right: the bootstrap would say that the figure is certain, which 360 pictures are not."""
    found = right_of(360, 360, groups)
    bare = ["macro_f1", "ece"] if groups is None else ["accuracy", "macro_f1", "ece"]
    for name in bare:
        assert found[name]["value"] is not None
        assert (found[name]["low"], found[name]["high"]) == (None, None), name


def test_groups_are_resampled_together() -> None:
    """Ten equal samples a patient say no more than one: the interval is √10 times as wide."""
    labels = torch.zeros(400, dtype=torch.int64)
    patient = torch.arange(40).repeat_interleave(10)
    predicted = torch.where(patient < 32, 0, 1)
    probabilities = torch.tensor([[0.6, 0.4]]).expand(400, 2).contiguous()
    found = metrics.evaluate(probabilities, labels, predicted, ["a", "b"], patient)["accuracy"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 40)
    assert found["high"] - found["low"] == pytest.approx(2 * half, abs=0.03)


def test_a_class_that_does_not_occur_is_left_out_not_counted_as_zero() -> None:
    probabilities, labels, _ = sample(40)
    labels = labels.clamp(max=2)
    predicted = labels.clone()
    found = metrics.evaluate(probabilities, labels, predicted, CLASSES)
    assert found["macro_f1"]["value"] == pytest.approx(1.0)
    absent = found["per_class"][3]
    assert (absent["support"], absent["recall"], absent["auroc"]) == (0, None, None)
    assert found["auroc"]["value"] is not None


def test_coverage_leaves_the_least_confident_out() -> None:
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6])
    rows = metrics.coverage(confidence, torch.tensor([True, True, False, False]), points=4)
    assert [row["risk"] for row in rows] == pytest.approx([0, 0, 1 / 3, 0.5])
    assert [row["coverage"] for row in rows] == [0.25, 0.5, 0.75, 1.0]
    assert [row["confidence"] for row in rows] == pytest.approx([0.9, 0.8, 0.7, 0.6])
