"""Our figures are those of torchmetrics, seqeval, scikit-learn and the WNUT17 shared task."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("seqeval", reason="needs renshu[text]")
from seqeval.metrics import f1_score, precision_score, recall_score
from torchmetrics.functional import classification as peer
from torchmetrics.functional import mean_absolute_error, pearson_corrcoef, r2_score

from renshu_tasks.common.coverage import risk_by_coverage
from renshu_tasks.text import metrics, readers

ONES = np.ones((1, 500))
SHARED = Path(os.environ.get("RENSHU_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, decisions and confidences of 500 texts in 5 classes; class 4 never occurs."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 4, 500)
    chosen = np.where(random.random(500) < 0.7, truth, random.integers(0, 5, 500))
    return truth, chosen, random.random(500)


def test_accuracy_f1_and_matthews(labels: tuple) -> None:
    truth, chosen, _ = labels
    found = metrics.classification(truth, chosen, 5)(ONES)
    said, true = torch.tensor(chosen), torch.tensor(truth)
    f1 = peer.multiclass_f1_score(said, true, 5, average="none")[:4].mean()
    assert found["accuracy"][0] == pytest.approx((truth == chosen).mean())
    assert found["macro_f1"][0] == pytest.approx(float(f1), abs=1e-6)
    mcc = peer.multiclass_matthews_corrcoef(said, true, 5)
    assert found["mcc"][0] == pytest.approx(float(mcc), abs=1e-6)


def test_calibration_error(labels: tuple) -> None:
    _, _, confidence = labels
    right = confidence**2 > 0.3
    found = metrics.calibration(confidence, right)(ONES)["ece"][0]
    expected = peer.binary_calibration_error(
        torch.tensor(confidence), torch.tensor(right).long(), n_bins=15
    )
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_several_labels() -> None:
    random = np.random.default_rng(1)
    truth, chosen = random.random((500, 6)) < 0.3, random.random((500, 6)) < 0.4
    found = metrics.multi_label(truth, chosen)(ONES)
    said, true = torch.tensor(chosen).long(), torch.tensor(truth).long()
    for average in ("macro", "micro"):
        expected = peer.multilabel_f1_score(said, true, 6, average=average)
        assert found[f"{average}_f1"][0] == pytest.approx(float(expected), abs=1e-6)


def test_regression() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(50, 10, 500)
    values = truth + random.normal(2, 5, 500)
    found = metrics.regression(truth, values)(ONES)
    said, true = torch.tensor(values), torch.tensor(truth)
    assert found["mae"][0] == pytest.approx(float(mean_absolute_error(said, true)))
    assert found["pearson"][0] == pytest.approx(float(pearson_corrcoef(said, true)))
    assert found["r2"][0] == pytest.approx(float(r2_score(said, true)))


def test_entities_are_those_of_seqeval() -> None:
    random = np.random.default_rng(3)
    tags = np.array(["O", "O", "B-per", "I-per", "B-loc", "I-loc"])
    truth = [tags[random.integers(0, 6, 12)].tolist() for _ in range(80)]
    said = [[t if random.random() < 0.8 else "O" for t in one] for one in truth]
    counts = metrics.entity_counts(truth, said)
    found = metrics.entities(counts)(np.ones((1, 80)))
    assert found["entity_f1"][0] == pytest.approx(f1_score(truth, said))
    assert found["entity_precision"][0] == pytest.approx(precision_score(truth, said))
    assert found["entity_recall"][0] == pytest.approx(recall_score(truth, said))


@pytest.mark.parametrize(("team", "expected"), [("uh_ritual", 0.4186), ("sjtu_adapt", 0.4042)])
def test_submissions_of_the_shared_task_get_their_published_figure(
    team: str, expected: float
) -> None:
    folder = SHARED / "wnut17"
    if not folder.is_dir():
        pytest.skip("the WNUT17 submissions are not in the shared data")
    file = next(f for f in (folder / "submissions").iterdir() if team in f.name)
    tags = [line.split()[-1] for line in file.read_text("utf-8").splitlines() if line.strip()]
    truth = [row["tags"] for _, row in readers.read(folder / "test.conll", "utf-8", 10**6)]
    left = iter(tag.partition(",")[0] for tag in tags)
    said = [[next(left) for _ in sentence] for sentence in truth]
    assert next(left, None) is None
    counts = metrics.entity_counts(truth, said)
    found = metrics.entities(counts)(np.ones((1, len(counts))))["entity_f1"][0]
    assert found == pytest.approx(expected, abs=5e-5)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 50 samples of a coin with p = 0.7, about 95 % of the intervals hold 0.7."""
    random = np.random.default_rng(4)
    held = 0
    for _ in range(50):
        right = random.random(200) < 0.7
        found = metrics.bootstrap(metrics.shares(right=right), np.arange(200))["right"]
        held += found["low"] <= 0.7 <= found["high"]
    assert 43 <= held <= 50


def test_texts_of_one_group_are_drawn_together() -> None:
    """100 copies of 20 texts say no more than the 20."""
    right = np.random.default_rng(5).random(20) < 0.5
    once = metrics.bootstrap(metrics.shares(right=right), np.arange(20))["right"]
    groups = np.repeat(np.arange(20), 100)
    many = metrics.bootstrap(metrics.shares(right=np.repeat(right, 100)), groups)["right"]
    assert many == pytest.approx(once)


def test_abstention(labels: tuple) -> None:
    truth, chosen, confidence = labels
    rows = risk_by_coverage(confidence, truth == chosen)
    assert rows[-1]["coverage"] == 1.0
    assert rows[-1]["risk"] == pytest.approx((truth != chosen).mean())
    best = np.argsort(-confidence)[:25]
    assert rows[0]["risk"] == pytest.approx((truth != chosen)[best].mean())
