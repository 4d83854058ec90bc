"""The detectors beside TSB-AD 1.5's own code: scores, accuracy and training time.

TSB-AD pins numpy below 2, so it is not installed: RENSHU_TSB_AD names the folder of its unpacked
wheel (pip download --no-deps TSB-AD==1.5; unzip), which runs as tests/tasks/anomaly/
make_tsb_ad_scores.py says. Series are read from RENSHU_SHARED_DATA (default: ../shared/data); few
and short ones, since TSB-AD takes its time. TSB-AD's networks are given the values as ours scales
them: of one channel it takes them as they are.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

import _table
from renshu_tasks.anomaly.detectors import make
from renshu_tasks.anomaly.learner import BestWeights
from renshu_tasks.anomaly.metrics.events import Scores
from renshu_tasks.anomaly.metrics.volume import vus
from renshu_tasks.anomaly.metrics.window import metric_window
from renshu_tasks.anomaly.readers import read_series
from renshu_tasks.anomaly.series import Series

SHARED = Path(os.environ.get("RENSHU_SHARED_DATA", _table.ROOT.parent / "shared" / "data"))
PEER = "TSB-AD 1.5"
TESTS = _table.ROOT / "tests" / "tasks" / "anomaly"
DETERMINISTIC = ("sub_pca", "sub_knn", "kmeans", "iforest", "lof", "poly", "spectral_residual")
NETWORKS = {"cnn": "CNN", "lstm": "LSTMAD", "usad": "USAD"}
EPOCHS, SEEDS = 5, 5
RANKS = "lowest rank correlation of scores over 5 real series"
AREAS = "largest difference in VUS-PR over 5 real series"
TIME = "an epoch over 3,000 points of one channel"
MEANS = "difference in mean VUS-PR of 3 real series and 5 seeds"
CURVES = "largest relative difference of an epoch's mean validation loss, 3 series, 5 seeds"


def tsb_ad() -> ModuleType | None:
    """The script that calls TSB-AD's detectors, its modules importable; None without TSB-AD."""
    folder = os.environ.get("RENSHU_TSB_AD")
    if folder is None:
        return None
    sys.path[:0] = [str(TESTS), folder]
    import make_tsb_ad_scores as maker

    for name, unused in {**maker.UNUSED, "torchinfo": []}.items():
        module = ModuleType(name)
        for attribute in unused:
            setattr(module, attribute, None)
        sys.modules[name] = module
    np.Inf = np.inf  # type: ignore[attr-defined]  # gone in numpy 2
    return maker


def quietly(run: Callable[[], Any]) -> Any:
    """Without TSB-AD's progress bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run()


def some_series() -> list[Series]:
    """Two of UCR and three of NAB, those with labelled anomalies."""
    nab = sorted((SHARED / "nab" / "data").glob("real*/*.csv"))[::5]
    ucr = sorted((SHARED / "ucr").glob("*.txt"))[:2]
    found = [read_series(file) for file in [*ucr, *nab]]
    return [one for one in found if one.events and len(one) < 8_000][:5]


def same_scores(maker: ModuleType) -> Iterable[_table.Row]:
    """Both fitted on the whole series and scoring it, as TSB-AD does."""
    from scipy.stats import spearmanr

    series = some_series()
    for name in DETERMINISTIC:
        ranks, differences = [], []
        for one in series:
            window = metric_window(one.values).points
            maker.WINDOW = window
            given = {} if name == "spectral_residual" else {"window": window}
            own = make(name, given).fit_score(one.values)
            theirs = np.ravel(quietly(lambda v=one.values, n=name: maker.scores(n, v)))
            ranks.append(spearmanr(own, theirs)[0])
            pair = [vus(one.labels, scores, window).pr for scores in (own, theirs)]
            differences.append(abs(pair[0] - pair[1]))
        yield _table.Row(f"{name}: {RANKS}", "", min(ranks), None, PEER, ">= 0.99")
        yield _table.Row(f"{name}: {AREAS}", "", max(differences), None, PEER, "<= 0.01")


def their_network(name: str, channels: int, epochs: int) -> Any:
    """TSB-AD's detector, with its early stopping off."""
    from TSB_AD.models import CNN, LSTMAD, USAD

    window = 5 if name == "usad" else 100
    made: dict[str, Callable[[], Any]] = {
        "cnn": lambda: CNN.CNN(window_size=window, feats=channels, epochs=epochs),
        "lstm": lambda: LSTMAD.LSTMAD(window_size=window, feats=channels, epochs=epochs),
        "usad": lambda: USAD.USAD(win_size=window, feats=channels, epochs=epochs, lr=1e-3),
    }
    detector = made[name]()
    detector.early_stopping.patience = 10**6
    return detector


def our_network(name: str, epochs: int, seed: int = 0) -> Any:
    """The same window, batch, rate and epochs."""
    window = 5 if name == "usad" else 100
    rate = 1e-3 if name == "usad" else 8e-4
    given = {"window": window, "epochs": epochs, "learning_rate": rate, "seed": seed}
    return make(name, given | {"patience": 10**6})


def seconds_an_epoch(make_one: Callable[[int], Any], values: np.ndarray, repeats: int) -> float:
    """Processor seconds, from two lengths of training: what happens once a fit does not count."""
    found = []
    quietly(lambda: make_one(1).fit(values))  # what is imported and compiled once
    for _ in range(repeats):
        spent = []
        for epochs in (1, 1 + EPOCHS):
            start = time.process_time()
            quietly(lambda e=epochs: make_one(e).fit(values))
            spent.append(time.process_time() - start)
        found.append((spent[1] - spent[0]) / EPOCHS)
    return float(np.median(found))


def training_time(repeats: int) -> Iterable[_table.Row]:
    """On the training part of a real series, one thread."""
    torch.set_num_threads(1)
    values = read_series(sorted((SHARED / "ucr").glob("138*.txt"))[0]).train
    for name in NETWORKS:
        own = seconds_an_epoch(lambda e, n=name: our_network(n, e), values, repeats)
        theirs = seconds_an_epoch(lambda e, n=name: their_network(n, 1, e), values, repeats)
        yield _table.Row(f"{name}: {TIME}", "s", own, theirs, PEER, f"<= {theirs / 2:.3g}")


def trained_both(name: str, one: Series, seed: int) -> tuple[list[Scores], np.ndarray]:
    """Both networks fitted on the training part: ours and their scores, and validation losses.

    Losses are float64 [2, epochs], ours first.
    """
    curves: list[list[float]] = [[], []]
    keep_best = BestWeights.on_validation_end

    def ours(self: BestWeights, trainer: Any, module: Any) -> None:
        curves[0].append(float(trainer.callback_metrics["val_loss"]))
        keep_best(self, trainer, module)

    with mock.patch.object(BestWeights, "on_validation_end", ours):
        detector = our_network(name, 10, seed).fit(one.train)
    scaled = detector.scaled(one.values).numpy().astype(np.float64)
    torch.manual_seed(seed)
    peer = their_network(name, 1, 10)
    peer.early_stopping = lambda loss, model: curves[1].append(loss)
    peer.early_stopping.early_stop = False
    quietly(lambda: peer.fit(scaled[: one.train_end]))
    theirs = np.ravel(quietly(lambda: peer.decision_function(scaled)))
    return [detector.score(one.values), theirs], np.array(curves)


def networks_beside() -> Iterable[_table.Row]:
    """Mean VUS-PR and loss curves over seeds and series, trained on the training part."""
    series = some_series()[:3]
    for name in NETWORKS:
        values, curves = [], []
        for one in series:
            window = metric_window(one.train).points
            for seed in range(SEEDS):
                scores, losses = trained_both(name, one, seed)
                values.append([vus(one.labels, found, window).pr for found in scores])
                curves.append(losses)
        own, theirs = np.mean(values, axis=0).tolist()
        yield _table.Row(f"{name}: {MEANS}", "", abs(own - theirs), None, PEER, "<= 0.03",
            spread=f"{own:.3f}, {PEER} {theirs:.3f}")  # fmt: skip
        if name == "usad":  # TSB-AD adds its two losses: no curve to compare
            continue
        means = np.mean(curves, axis=0)
        apart = float(np.abs(means[0] / means[1] - 1).max())
        first, last = means[:, 0], means[:, -1]
        spread = (
            f"first epoch {first[0]:.3g} and {first[1]:.3g}, last {last[0]:.3g} and {last[1]:.3g}"
        )
        yield _table.Row(f"{name}: {CURVES}", "", apart, None, PEER, spread=spread)


def stored_rows() -> Iterable[_table.Row]:
    """All rows of the last full run."""
    for name in NETWORKS:
        yield _table.stored(__file__, f"{name}: {TIME}", "s")
    for name in DETERMINISTIC:
        yield _table.stored(__file__, f"{name}: {RANKS}", "", ">= 0.99")
        yield _table.stored(__file__, f"{name}: {AREAS}", "", "<= 0.01")
    for name in NETWORKS:
        yield _table.stored(__file__, f"{name}: {MEANS}", "", "<= 0.03")
        if name != "usad":
            yield _table.stored(__file__, f"{name}: {CURVES}", "")


def measure(quick: bool) -> Iterable[_table.Row]:
    """Every row; without TSB-AD or the series, and with --quick, the last full run's."""
    maker = tsb_ad()
    if quick or maker is None or not (SHARED / "ucr").is_dir():
        yield from stored_rows()
        return
    yield from training_time(repeats=2)
    yield from networks_beside()
    yield from same_scores(maker)


if __name__ == "__main__":
    _table.main(__file__, measure)
