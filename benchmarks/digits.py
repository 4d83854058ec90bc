"""Handwritten digits: accuracy over five splits beside a support vector machine, and the wait.

The splits are scikit-learn's stratified 80 / 20 with random_state 0 to 4. Everything is chosen on a
validation part that is cut from the training part; the test part is read once a run. The recipe is
the task's default, found on validation parts alone. Quick measures the one command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import _table

SPLITS = range(5)
COMMAND = ["train", "image_classification"]


def _svm(train: list[int], test: list[int]) -> float:
    """Test accuracy of the support vector machine on the 64 pixels of 0 to 16."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    pixels, labels = load_digits(return_X_y=True)
    machine = SVC(gamma=0.001, C=10).fit(pixels[train], labels[train])
    return float(machine.score(pixels[test], labels[test]))


def _renshu(test: list[int], seed: int, folder: Path) -> float:
    """Test accuracy of the command's own recipe on one split."""
    from renshu import Trainer
    from renshu.cli.parser import parse_train
    from renshu_tasks.image_classification import demo, module
    from renshu_tasks.image_classification.data import ImageData

    request = parse_train(COMMAND[1:])
    images, labels = demo.load_digits()
    chosen = set(test)
    parts = ["test" if row in chosen else "train" for row in range(len(labels))]
    data = ImageData.from_arrays(images, labels, parts=parts, split_seed=seed)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        **request.trainer
        | quiet
        | {"seed": seed, "enable_checkpointing": False, "precision": "32-true"}
        | {"callbacks": module.callbacks(request.options)}
    )
    classifier = module.build(request.options, data)
    trainer.fit(classifier, datamodule=data)
    module.finish(classifier, data, folder)
    figures = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text("utf-8"))
    return figures["accuracy"]["value"]


def _accuracies() -> Iterable[_table.Row]:
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits(return_X_y=True)[1]
    ours, theirs = [], []
    for seed in SPLITS:
        train, test = train_test_split(
            range(len(labels)), test_size=0.2, stratify=labels, random_state=seed
        )
        torch.manual_seed(seed)
        with tempfile.TemporaryDirectory() as folder:
            ours.append(_renshu(test, seed, Path(folder)))
        theirs.append(_svm(train, test))
        print(
            f"  split {seed}: {ours[-1]:.4f}, support vector machine {theirs[-1]:.4f}", flush=True
        )
    mean, peer = sum(ours) / len(ours), sum(theirs) / len(theirs)
    spread = f"{min(ours):.4f} to {max(ours):.4f}"
    svm = f"support vector machine, {_table.named('scikit-learn')}"
    yield _table.Row(ACCURACY, "share", mean, peer, svm, ">= 0.996", spread)
    yield _table.Row(ABOVE, "share", mean, peer, svm, "> peer", spread)


def _command() -> _table.Row:
    """Wall time of the whole command in a new process: start, data, training, test, report."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        words = [sys.executable, "-m", "renshu", *COMMAND, "--trainer.seed", "0"]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        assert list(Path(folder).rglob("report.html")), "the command wrote no report"
    return _table.Row(WAIT, "s", seconds, reach="<= 30")


ACCURACY = "digits: test accuracy, mean of 5 splits"
ABOVE = "digits: the same, above the support vector machine"
WAIT = "digits: the whole command, from start to report"


def measure(quick: bool) -> Iterable[_table.Row]:
    """The rows; quick takes the accuracies from the last full run."""
    if quick:
        yield _table.stored(__file__, ACCURACY, "share", ">= 0.996")
        yield _table.stored(__file__, ABOVE, "share", "> peer")
    else:
        yield from _accuracies()
    yield _command()


if __name__ == "__main__":
    _table.main(__file__, measure)
