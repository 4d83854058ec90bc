"""Run folders made from real digits with scikit-learn: what the report reads."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS = 12
BATCH = 128


def digits_run(folder: Path, names: list[str] | None = None) -> Path:
    """A complete run: a network of scikit-learn, trained by steps on the digits and evaluated.

    Args:
        folder: the run folder to make.
        names: the ten classes' names.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    names = names or [str(digit) for digit in range(10)]
    bunch: Any = load_digits()
    images = (bunch.data / 16).astype(np.float32)
    parts = train_test_split(images, bunch.target, test_size=0.4, random_state=0)
    x_train, x_rest, y_train, y_rest = parts
    x_val, x_test, y_val, y_test = train_test_split(x_rest, y_rest, test_size=0.5, random_state=0)
    folder.mkdir(parents=True)
    network = _train(folder, (x_train, y_train), (x_val, y_val))
    _settings(folder, {"train": len(y_train), "val": len(y_val), "test": len(y_test)})
    _evaluation(folder / "evaluation" / "test", network, x_test, y_test, names)
    return folder


def _train(folder: Path, train: Any, val: Any) -> Any:
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((32,), learning_rate_init=0.003, random_state=0)
    rows, step, rng = [], 0, np.random.default_rng(0)
    for epoch in range(EPOCHS):
        for batch in np.array_split(rng.permutation(len(train[1])), len(train[1]) // BATCH):
            network.partial_fit(train[0][batch], train[1][batch], classes=range(10))
            row = {"epoch": epoch, "step": step, "samples": (step + 1) * BATCH}
            rows.append(row | {"train_loss_step": float(network.loss_), "lr-Adam": 0.003})
            step += 1
        scores = network.predict_proba(val[0])
        rows[-1] |= {
            "val_loss": float(-np.log(scores[np.arange(len(val[1])), val[1]] + 1e-12).mean()),
            "val_accuracy": float((scores.argmax(1) == val[1]).mean()),
            "train_accuracy": float(network.score(*train)),
        }
    columns = ["epoch", "step", "samples", "train_loss_step", "lr-Adam"]
    columns += ["val_loss", "val_accuracy", "train_accuracy"]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return network


def _settings(folder: Path, counts: dict[str, int]) -> None:
    (folder / "config.yaml").write_text(
        "task: image_classification\n"
        "data:\n  batch_size: 128\n  test_share: 0.2\n  classes: null\n"
        "model:\n  name: small\n"
        "training:\n  lr: 0.003\n  label_smoothing: 0.1\n"
        "trainer:\n  max_epochs: 12\n  precision: 32-true\n"
    )
    environment = {
        "command": ["renshu", "train", "image_classification", "--trainer.max_epochs", "12"],
        "started": "2026-11-24T07:00:00+00:00",
        "seconds": 21.4,
        "host": "node-17",
        "device": "cpu",
        "seed": 1234,
        "git_commit": "528cb66",
        "versions": {"python": "3.11.2", "torch": "2.14.1", "renshu": "0.1.0"},
        "data": {
            split: {"files": count, "bytes": 64 * count, "sha256": f"{count:064x}"}
            for split, count in counts.items()
        },
    }
    (folder / "environment.json").write_text(json.dumps(environment, indent=1))


def _evaluation(folder: Path, network: Any, images: Any, labels: Any, names: list[str]) -> None:
    from safetensors.numpy import save_file

    (folder / "worst").mkdir(parents=True)
    scores = network.predict_proba(images).astype(np.float32)
    save_file(
        {"probabilities": scores, "labels": labels.astype(np.int64)}, folder / "arrays.safetensors"
    )
    right = (scores.argmax(1) == labels).astype(float)
    half = 1.96 * float(right.std() / np.sqrt(len(right)))
    accuracy = float(right.mean())
    metrics = {
        "classes": names,
        "count": len(labels),
        "temperature": 1.4,
        "accuracy": {"value": accuracy, "low": accuracy - half, "high": min(1, accuracy + half)},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    worst = np.argsort(scores[np.arange(len(labels)), labels])[:12]
    rows = []
    for place, index in enumerate(worst):
        image = images[index]
        _picture(folder / "worst" / f"{place:02}.png", image)
        _picture(folder / "worst" / f"{place:02}-cam.png", _occlusion(network, image))
        rows.append(
            {
                "id": f"digits/{index:04}",
                "image": f"{place:02}.png",
                "overlay": f"{place:02}-cam.png",
                "true": names[labels[index]],
                "predicted": names[scores[index].argmax()],
                "confidence": float(scores[index].max()),
            }
        )
    (folder / "worst.json").write_text(json.dumps(rows))


def _occlusion(network: Any, image: Any) -> Any:
    """How much each pixel, set to zero, takes from the predicted class: [64] in [0, 1]."""
    covered = np.tile(image, (64, 1))
    np.fill_diagonal(covered, 0)
    before = network.predict_proba(image[None])[0]
    fall = np.clip(before.max() - network.predict_proba(covered)[:, before.argmax()], 0, None)
    return fall / (fall.max() + 1e-12)


def _picture(file: Path, pixels: Any) -> None:
    from PIL import Image

    Image.fromarray((pixels.reshape(8, 8) * 255).astype(np.uint8)).save(file)


def copy_run(source: Path, target: Path) -> Path:
    """A run folder to change without harm to the others."""
    shutil.copytree(source, target)
    return target
