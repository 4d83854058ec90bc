"""Each detector against something else that computes the same."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason='needs pip install "renshu[anomaly]"')

from scipy.stats import spearmanr

from renshu_tasks.anomaly.detector import windows_of
from renshu_tasks.anomaly.detectors import make

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def tsb_ad() -> tuple[np.ndarray, dict[str, np.ndarray], int]:
    """The series and scores of TSB-AD 1.5's own code, and the window."""
    spec = importlib.util.spec_from_file_location("maker", HERE / "make_tsb_ad_scores.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    stored = json.loads((HERE / "fixtures" / "tsb_ad_1_5.json").read_text())
    return maker.series(), {name: np.array(values) for name, values in stored.items()}, maker.WINDOW


# pains/anomaly.md row 5
@pytest.mark.parametrize("name", ["sub_pca", "sub_knn", "kmeans", "lof"])
def test_scores_are_those_of_tsb_ad(name, tsb_ad):
    x, expected, window = tsb_ad
    scores = make(name, {"window": window}).fit_score(x)
    np.testing.assert_allclose(scores, expected[name], rtol=1e-6, atol=1e-9 * expected[name].max())


@pytest.mark.parametrize("name", ["iforest", "poly", "spectral_residual"])
def test_scores_rank_as_those_of_tsb_ad(name, tsb_ad):
    x, expected, window = tsb_ad
    parameters = {} if name == "spectral_residual" else {"window": window}
    scores = make(name, parameters).fit_score(x)
    assert spearmanr(scores, expected[name])[0] >= 0.99


def test_the_isolation_forest_is_that_of_scikit_learn_shifted(tsb_ad):
    """TSB-AD subtracts an offset that its contamination chose: the paper's score does not."""
    x, expected, window = tsb_ad
    difference = make("iforest", {"window": window}).fit_score(x) - expected["iforest"]
    assert np.ptp(difference) < 1e-9


def plain_profile(x: np.ndarray, window: int, zone: int) -> np.ndarray:
    """Every window against every other that begins farther than `zone` away, one by one."""
    windows = windows_of(x, window)
    normal = [(w - w.mean()) / w.std() if w.std() > 1e-9 else w * 0 for w in windows]
    found = np.full(len(normal), np.inf)
    for i, a in enumerate(normal):
        for j, b in enumerate(normal):
            if abs(i - j) > zone:
                found[i] = min(found[i], float(np.sqrt(((a - b) ** 2).sum())))
    return found


def test_the_matrix_profile_is_the_plain_one(wave):
    x = wave(200, seed=5)
    x[90:110] = 0.5
    found = make("matrix_profile", {"window": 16}).fit_score(x)
    np.testing.assert_allclose(found[8:-7], plain_profile(x, 16, 4), atol=1e-10)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # of numba, which compiles for a minute
def test_the_matrix_profile_is_that_of_stumpy(wave):
    stumpy = pytest.importorskip("stumpy")
    x = wave(3000, seed=6)
    x[1000:1200] = x[1000]
    expected = stumpy.stump(x[:, 0], 50)[:, 0].astype(float)
    found = make("matrix_profile", {"window": 50}).fit_score(x)
    np.testing.assert_allclose(found[25:-24], expected, atol=1e-9)
    train, test = x[:900], x[900:]
    joined = stumpy.stump(test[:, 0], 50, train[:, 0], ignore_trivial=False)[:, 0]
    own = make("matrix_profile", {"window": 50}).fit(train).score(test, causal=True)
    np.testing.assert_allclose(own[49:], joined.astype(float), atol=1e-9)


def test_baselines_are_what_they_say():
    x = np.array([[0.0], [1.0], [3.0], [2.0], [9.0], [9.0]])
    difference = make("difference").fit(x[:4])
    deviation = np.std([1.0, 2.0, -1.0])
    np.testing.assert_allclose(difference.score(x), np.array([0, 1, 2, 1, 7, 0]) / deviation)
    scores = make("zscore", {"window": 3}).fit(x[:4]).score(x)
    before = x[1:4, 0]
    assert scores[:3].tolist() == [0, 0, 0]
    assert scores[4] == pytest.approx(abs(9 - before.mean()) / before.std())
    assert make("constant").fit(x).score(x).tolist() == [0] * 6
    expected = np.random.default_rng(3).random(6)
    np.testing.assert_array_equal(make("random", {"seed": 3}).fit(x).score(x), expected)


def test_the_residual_is_that_of_a_projection(wave):
    x, new = wave(400, channels=2, seed=1), wave(100, channels=2, seed=2)
    detector = make("residual_pca", {"window": 10, "explained": 0.8}).fit(x)
    scale = np.tile(windows_of(x, 10).reshape(-1, 2).std(axis=0), 10)
    known = (windows_of(x, 10) - windows_of(x, 10).mean(axis=0)) / scale
    asked = (windows_of(new, 10) - windows_of(x, 10).mean(axis=0)) / scale
    _, singular, axes = np.linalg.svd(known - known.mean(axis=0))
    share = np.cumsum(singular**2) / (singular**2).sum()
    axes = axes[: int(np.searchsorted(share, 0.8)) + 1]
    residual = asked - asked @ axes.T @ axes
    np.testing.assert_allclose(detector.score(new, True)[9:], (residual**2).sum(axis=1), rtol=1e-9)


def test_the_causal_polynomial_is_a_fit_to_the_points_before(wave):
    x = wave(160, seed=3)
    detector = make("poly", {"window": 5, "power": 3}).fit(x)
    scores = detector.score(x, causal=True) * x.std()
    for t in (100, 131, 159):
        fitted = np.polynomial.Polynomial.fit(np.arange(100), x[t - 100 : t, 0], 3)
        assert scores[t] == pytest.approx(abs(x[t, 0] - fitted(100)), abs=1e-9)


# --- networks


def test_a_forecast_is_held_against_the_next_point(wave):
    x = wave(120, channels=2)
    detector = make("cnn", {"window": 20, "epochs": 1}).fit(x)
    scores, scaled = detector.score(x), torch.from_numpy((x - detector.centre) / detector.scale)
    with torch.no_grad():
        for t in (20, 77, 119):
            past = scaled[t - 20 : t].T[None].float()
            error = (detector.network(past)[0].double() - scaled[t]) ** 2
            assert scores[t] == pytest.approx(float(error.sum()), rel=1e-5)
    assert (scores[:20] == 0).all()


def test_scaling_is_that_of_the_learning_part_alone(wave):
    x = wave(200)
    x[160:] += 100  # the validation part
    detector = make("cnn", {"window": 20, "epochs": 1}).fit(x)
    assert detector.centre[0] == pytest.approx(x[:160].mean())
    assert detector.scale[0] == pytest.approx(x[:160].std())


def test_the_convolutional_autoencoder_keeps_any_length():
    from renshu_tasks.anomaly.detectors.autoencoder import ConvAutoencoder

    for length in (8, 9, 10, 11, 50):
        assert ConvAutoencoder(3)(torch.zeros(2, 3, length)).shape == (2, 3, length)


def test_usad_has_the_papers_losses_and_moves_each_player_alone(wave):
    from renshu_tasks.anomaly.detectors.usad import TwoAutoencoders

    torch.manual_seed(0)
    network, window = TwoAutoencoders(2, 5), torch.rand(8, 2, 5)
    flat = window.flatten(1)
    first, second = network.decoders
    one, two = first(network.encoder(flat)), second(network.encoder(flat))
    three = second(network.encoder(one))
    error = [((out - flat) ** 2).mean().item() for out in (one, two, three)]
    for epoch in (0, 3):
        n = epoch + 1
        loss = [value.item() for value in network.losses(window, epoch)]
        assert loss[0] == pytest.approx(error[0] / n + (1 - 1 / n) * error[2], rel=1e-5)
        assert loss[1] == pytest.approx(error[1] / n - (1 - 1 / n) * error[2], rel=1e-5)
    mine, other = (set(map(id, player)) for player in network.players())
    encoder = set(map(id, network.encoder.parameters()))
    assert mine & other == encoder and len(mine | other) == len(list(network.parameters()))


def test_training_leaves_the_random_state_of_the_caller(wave):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    make("cnn", {"window": 20, "epochs": 1}).fit(wave(120))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["cnn", "lstm", "autoencoder"])
def test_a_network_beats_its_start(name, wave):
    x = wave(500, channels=2)
    errors = []
    for epochs in (1, 8):
        parameters = {"window": 24, "epochs": epochs, "learning_rate": 0.01, "batch_size": 32}
        errors.append(make(name, parameters).fit(x[:400]).score(x)[430:].mean())
    assert errors[1] < 0.5 * errors[0]


def test_the_best_epoch_is_kept(wave, monkeypatch):  # pains/anomaly.md row 39
    from renshu_tasks.anomaly.learner import BestWeights

    kept = []
    ended = BestWeights.on_fit_end

    def remember(self, trainer, module):
        kept.append(self.best)
        ended(self, trainer, module)

    monkeypatch.setattr(BestWeights, "on_fit_end", remember)
    x = wave(300)
    detector = make("cnn", {"window": 20, "epochs": 6, "learning_rate": 0.05}).fit(x)
    held_out = detector.score(x[240:])[20:].mean()
    assert held_out == pytest.approx(kept[0], rel=1e-3)
