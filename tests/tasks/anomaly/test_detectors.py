"""The contract that every detector keeps: batch, stream, prefix, state, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "renshu[anomaly]"')

from renshu.errors import CheckpointError, ConfigError, DataError, RunError
from renshu_tasks.anomaly.detector import Detector, State, WindowDetector, align, windows_of
from renshu_tasks.anomaly.detectors import DETECTORS, NEURAL, TRIVIAL, detector_class, make, restore
from renshu_tasks.anomaly.prequential import prequential

CLASSICAL = [name for name in DETECTORS if name not in NEURAL]
WINDOWLESS = ("random", "constant", "difference")
BLIND = ("random", "constant")
MULTIVARIATE = [name for name in DETECTORS if detector_class(name).multivariate]
ADDITIVE = [name for name in DETECTORS if detector_class(name).additive]


def small(name: str, window: int = 25) -> Detector:
    """A detector that is fitted in a moment."""
    parameters: dict[str, Any] = {} if name in WINDOWLESS else {"window": window}
    if name in NEURAL:
        parameters |= {"epochs": 2, "window": 20}
    if name == "iforest":
        parameters |= {"trees": 20, "features": 0}
    if name == "spectral_residual":
        parameters["window"] = 100
    return make(name, parameters)


@pytest.fixture(scope="module")
def fitted(wave) -> dict[str, Detector]:
    """Every detector, fitted on the same normal wave."""
    train = wave(600, seed=1)
    return {name: small(name).fit(train) for name in DETECTORS}


@pytest.fixture(scope="module")
def broken(wave) -> np.ndarray:
    """A wave of 600 points that is flat in [400, 440) and jumps at 500."""
    x = wave(600, seed=2)
    x[400:440] = 0.3
    x[500] += 4
    return x


@pytest.mark.parametrize("name", DETECTORS)
def test_one_finite_score_a_point(name, fitted, broken):
    for causal in (True, False):
        scores = fitted[name].score(broken, causal)
        assert scores.shape == (600,) and scores.dtype == np.float64
        assert np.isfinite(scores).all() and (scores >= 0).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_a_stream_gives_the_causal_scores(name, fitted, broken):  # pains/anomaly.md row 14
    detector = fitted[name]
    length = 60 if name == "iforest" else 320 if name == "poly" else 150
    stream = detector.stream()
    one_by_one = np.array([stream.update(x) for x in broken[:length]])
    batch = detector.score(broken, causal=True)[:length]
    tolerance = 1e-5 * batch.max() if name in NEURAL else 1e-9
    np.testing.assert_allclose(one_by_one, batch, atol=tolerance, rtol=0)
    assert len(stream._recent) <= detector.memory - 1


@pytest.mark.parametrize("name", DETECTORS)
def test_scores_of_a_prefix_are_the_prefix_of_the_scores(name, fitted, broken):
    # pains/anomaly.md row 19
    whole = fitted[name].score(broken, causal=True)
    prefix = fitted[name].score(broken[:450], causal=True)
    np.testing.assert_allclose(prefix, whole[:450], atol=1e-5 if name in NEURAL else 1e-9)


@pytest.mark.parametrize("name", DETECTORS)
def test_score_then_learn(name, fitted, broken, wave):  # pains/anomaly.md row 40
    x = np.concatenate([wave(600, seed=1), broken[:150]])
    found = prequential(lambda: small(name), x, 600, every=100)
    assert found.shape == (150,) and np.isfinite(found).all()
    before = fitted[name].score(x, causal=True)[600:700]  # nothing learned yet
    tolerance = 1e-5 * max(1.0, before.max()) if name in NEURAL else 1e-9
    if name != "random":  # its numbers are those of the call
        np.testing.assert_allclose(found[:100], before, atol=tolerance)


def test_who_learns_again_gets_used_to_a_new_level(wave):
    x = wave(1600, seed=1)
    x[800:] += 3
    scores = prequential(lambda: small("residual_pca"), x, 600, every=200)
    fixed = small("residual_pca").fit(x[:600]).score(x, causal=True)[600:]
    assert scores[-150:].mean() < 0.1 * fixed[-150:].mean()
    with pytest.raises(ConfigError, match="0 points between two fits"):
        prequential(lambda: small("residual_pca"), x, 600, every=0)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_stretch_of_a_stream_is_as_its_points(name, fitted, broken):
    stream = fitted[name].stream()
    parts = [stream.extend(part) for part in np.array_split(broken, 7)]
    batch = fitted[name].score(broken, causal=True)
    np.testing.assert_allclose(np.concatenate(parts), batch, atol=1e-5 if name in NEURAL else 1e-9)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_state_is_plain_and_brings_the_detector_back(name, fitted, broken, tmp_path):
    from safetensors.numpy import load_file, save_file

    state = fitted[name].state()
    arrays = {key: np.ascontiguousarray(value) for key, value in state.arrays.items()}
    save_file(arrays, tmp_path / "state.safetensors")
    parameters = json.loads(json.dumps(state.parameters))
    again = restore(State(name, parameters, load_file(tmp_path / "state.safetensors")))
    np.testing.assert_array_equal(again.score(broken, True), fitted[name].score(broken, True))


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in BLIND])
def test_a_jump_has_its_highest_score_within_the_window(name, wave):
    # pains/anomaly.md rows 18, 34, 36: a constant, random or inverted score fails this
    x = wave(1200, seed=3)
    x[900] += 5
    detector = small(name, window=3 if name == "iforest" else 25).fit(x[:600])
    reach = detector.memory if name != "poly" else 25
    for causal in (True, False):
        place = int(detector.score(x, causal)[300:].argmax()) + 300
        assert abs(place - 900) <= reach, (name, causal, place)
        assert not causal or place >= 900


@pytest.mark.parametrize("name", BLIND)
def test_the_blind_baselines_do_not_find_it(name, wave):
    x = wave(1200, seed=3)
    x[900] += 5
    assert abs(int(make(name).fit(x[:600]).score(x).argmax()) - 900) > 25


@pytest.mark.parametrize("name", ["residual_pca", "sub_knn", "lof", "cnn"])
def test_new_data_have_scores_of_their_own(name, fitted, wave):  # pains/anomaly.md row 35
    one, two = fitted[name].score(wave(300, seed=8)), fitted[name].score(wave(300, seed=9))
    assert not np.allclose(one, two)


@pytest.mark.parametrize("name", [*CLASSICAL, "usad"])
def test_the_same_seed_gives_the_same_scores(name, wave, broken):  # pains/anomaly.md row 11
    scores = [small(name).fit(wave(400)).score(broken) for _ in range(2)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_constant_series_has_finite_scores(name):  # pains/anomaly.md rows 17, 24
    flat = np.full((300, 1), 7.3)
    detector = small(name).fit(flat)
    scores = detector.score(flat)
    assert np.isfinite(scores).all()
    assert detector.score(np.full((300, 1), 7.4)).max() < np.inf


def test_rounding_on_a_straight_line_is_no_discord():  # pains/anomaly.md row 24
    x = np.full((400, 1), 1e6)
    x[200:220] += 1e-9 * np.arange(20)[:, None]
    for name in ("matrix_profile", "sub_knn", "kmeans"):
        assert make(name, {"window": 20}).fit(x[:150]).score(x).max() == 0


def test_an_anomaly_that_occurs_twice_does_not_hide(wave):  # pains/anomaly.md row 25
    x = wave(1000, seed=4)
    bump = 2 * np.sin(np.linspace(0, np.pi, 12))[:, None]
    x[300:312] += bump
    x[700:712] = x[300:312]
    x[275:300], x[312:337] = x[675:700], x[712:737]
    first = make("matrix_profile", {"window": 25, "neighbours": 1}).fit_score(x)
    third = make("matrix_profile", {"window": 25, "neighbours": 3}).fit_score(x)
    assert first[306] < np.median(first)
    assert third[306] > np.quantile(third, 0.97)


# --- channels


@pytest.mark.parametrize("name", MULTIVARIATE)
def test_several_channels(name, wave):
    x = wave(400, channels=3)
    detector = small(name, window=10).fit(x[:300])
    assert detector.score(x).shape == (400,)
    with pytest.raises(DataError, match="3 channels, these are 2"):
        detector.score(x[:, :2])


@pytest.mark.parametrize("name", ["matrix_profile", "poly", "spectral_residual"])
def test_detectors_of_one_channel_refuse_several(name, wave):
    with pytest.raises(DataError, match="scores one channel, these are 2"):
        make(name).fit(wave(3000, channels=2))


@pytest.mark.parametrize("name", ADDITIVE)
def test_contributions_sum_to_the_score(name, wave):  # pains/anomaly.md row 27
    x = wave(500, channels=3)
    detector = small(name, window=10).fit(x[:300])
    for causal in (True, False):
        parts = detector.contributions(x, causal)
        assert parts.shape == (500, 3) and (parts >= 0).all()
        np.testing.assert_allclose(parts.sum(axis=1), detector.score(x, causal), rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in ADDITIVE])
def test_others_refuse_contributions(name, fitted, broken):
    with pytest.raises(ConfigError, match="not a sum over channels"):
        fitted[name].contributions(broken)


@pytest.mark.parametrize("name", ["difference", "zscore", "residual_pca"])
def test_the_planted_channel_is_ranked_first(name, wave):  # pains/anomaly.md row 26
    hits = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        x = wave(300, channels=10, seed=trial)
        channel, place = int(rng.integers(10)), int(rng.integers(240, 290))
        x[place, channel] += 4
        detector = small(name, window=10).fit(x[:200])
        parts = detector.contributions(x, causal=True)
        hits += int(parts[place].argmax()) == channel
    assert hits >= 95


@pytest.mark.slow
@pytest.mark.parametrize("name", NEURAL)
def test_networks_rank_the_planted_channel_first(name, wave):
    train = wave(600, channels=5, seed=1)
    parameters = {"epochs": 10, "window": 10, "learning_rate": 0.01, "hidden": 32, "latent": 10}
    if name != "usad":
        parameters = {key: parameters[key] for key in ("epochs", "window", "learning_rate")}
    detector, hits = make(name, parameters).fit(train), 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        x = wave(60, channels=5, seed=100 + trial)
        channel = int(rng.integers(5))
        x[40:42, channel] += 3
        hits += int(detector.contributions(x, causal=True)[40:50].sum(axis=0).argmax()) == channel
    assert hits >= 95


# --- what is refused


@pytest.mark.parametrize("name", DETECTORS)
def test_nan_and_infinity_are_refused_with_their_row(name, fitted, wave):  # pains/anomaly.md row 17
    for bad in (np.nan, np.inf):
        x = wave(600)
        x[123, 0] = bad
        with pytest.raises(DataError, match=r"row 123"):
            fitted[name].score(x)
        with pytest.raises(DataError, match=r"row 123"):
            small(name).fit(x)


@pytest.mark.parametrize("name", DETECTORS)
def test_values_too_large_to_square_are_refused(name, fitted, wave):
    x = wave(600)
    x[50] = 1e308
    with pytest.raises(DataError, match=r"1e\+308 is too large") as error:
        fitted[name].score(x)
    assert "row 50" in str(error.value) and "1e+100" in str(error.value)
    x[50] = 1e50  # large, but it can be computed with
    assert np.isfinite(fitted[name].score(x)).all()


@pytest.mark.parametrize("name", [n for n in DETECTORS if n not in BLIND])
def test_a_series_shorter_than_the_window_is_refused(name, fitted, wave):
    few = fitted[name].shortest - 1
    with pytest.raises(DataError, match=f"{few} points are too few for {name}"):
        fitted[name].score(wave(few))


def test_scores_before_fit_are_refused(wave):
    for call in ("score", "contributions", "stream", "state"):
        detector = make("residual_pca")
        with pytest.raises(ConfigError, match="is not fitted"):
            getattr(detector, call)(*([wave(200)] if call in ("score", "contributions") else []))


def test_fit_takes_values_and_nothing_else():  # pains/anomaly.md row 2
    import inspect

    for name in DETECTORS:
        assert list(inspect.signature(detector_class(name).fit).parameters) == ["self", "train"]


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="residual_pca"):
        make("residul_pca")
    with pytest.raises(ConfigError, match="did you mean 'window'"):
        make("lof", {"windw": 10})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sub_pca", {"window": 0}),
        ("zscore", {"window": 1}),
        ("matrix_profile", {"window": 2}),
        ("poly", {"power": 11}),
        ("spectral_residual", {"smoothing": 0}),
        ("residual_pca", {"explained": 1.0}),
        ("cnn", {"window": 5}),
        ("usad", {"validation": 0.0}),
    ],
)
def test_parameters_out_of_range_are_refused(name, parameters):
    with pytest.raises(ConfigError, match=r"allowed"):
        make(name, parameters)


@dataclass
class Faulty(Detector):
    """Gives the scores that it was made with."""

    name = "faulty"
    source = "none"
    cost = "none"
    scores: Any = None

    def _fit(self, train) -> None: ...

    def _score(self, values, causal):
        return self.scores


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.zeros(9), "for 10 points"),
        (np.zeros((10, 1)), "for 10 points"),
        (np.r_[np.zeros(4), np.nan, np.zeros(5)], "row 4"),
        (np.r_[np.zeros(7), np.inf, np.zeros(2)], "row 7"),
        (np.r_[-1.0, np.zeros(9)], "row 0"),
    ],
)
def test_scores_that_break_the_contract_are_an_error(scores, said):  # pains/anomaly.md row 3
    detector = Faulty(scores).fit(np.zeros((10, 1)))
    with pytest.raises(RunError, match=said):
        detector.score(np.zeros((10, 1)))


def test_an_altered_state_of_a_refitted_detector_is_refused(fitted):
    state = fitted["iforest"].state()
    state.arrays["train"] = state.arrays["train"] + np.arange(600)[:, None]
    with pytest.raises(CheckpointError, match="scores otherwise than stored"):
        restore(state)
    with pytest.raises(CheckpointError, match="cannot be used"):
        restore(State("lof", {}, {}))


def test_a_training_part_too_long_for_its_windows_is_refused():
    train = np.broadcast_to(np.zeros((1, 1)), (20_000_000, 1))
    with pytest.raises(DataError, match=r"windows of 20,000,000 training points"):
        make("lof", {"window": 200}).fit(train)


# --- windows


def test_windows_hold_the_points_of_one_time_side_by_side():
    x = np.arange(10.0).reshape(5, 2)
    assert windows_of(x, 3).tolist() == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9]]


@pytest.mark.parametrize("window", [1, 2, 5, 6])
def test_a_windows_score_is_placed_at_its_middle_or_end(window):
    scores = np.arange(1.0, 12 - window + 1)
    centred, causal = align(scores, window, False), align(scores, window, True)
    assert len(centred) == len(causal) == 11
    assert causal.tolist() == [0] * (window - 1) + scores.tolist()
    middle = -(-(window - 1) // 2)
    assert centred[middle] == 1 and centred[0] == 1 and centred[-1] == scores[-1]


def test_blocks_change_nothing(wave, monkeypatch):
    x = wave(500, channels=2)
    whole = make("residual_pca", {"window": 20}).fit(x[:300]).score(x)
    monkeypatch.setattr("renshu_tasks.anomaly.detector.BLOCK_BYTES", 4000)
    blocks = make("residual_pca", {"window": 20}).fit(x[:300]).score(x)
    np.testing.assert_allclose(blocks, whole, rtol=1e-12)


def test_memory_does_not_grow_with_windows(wave):  # pains/anomaly.md rows 22, 38
    import tracemalloc

    detector = make("residual_pca", {"window": 200}).fit(wave(3000))
    x = wave(200_000)
    tracemalloc.start()
    detector.score(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # the windows alone are 320 MB


def test_baselines_are_listed_as_trivial():
    assert [name for name in DETECTORS if detector_class(name).trivial] == list(TRIVIAL)
    assert all(detector_class(name).source for name in DETECTORS)
    assert issubclass(detector_class("lof"), WindowDetector)
