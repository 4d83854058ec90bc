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
TEMPERATURE = 0.8


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
        "training:\n  learning_rate: 0.003\n  label_smoothing: 0.1\n"
        "trainer:\n  max_epochs: 12\n  precision: 32-true\n"
    )
    environment = {
        "time": "2026-11-24T07:00:00+00:00",
        "command": "renshu train image_classification --trainer.max_epochs 12",
        "seed": 1234,
        "python": "3.11.2",
        "packages": {"renshu": "0.1.0", "torch": "2.14.1"},
        "platform": {"system": "Linux", "release": "6.1"},
        "cpu": {"model": "a processor", "machine": "x86_64", "cores": 2},
        "threads": {"torch": 2},
        "devices": [],
        "git": {"commit": "528cb665f0c3", "dirty": False},
        "fingerprint": {
            split: {
                "files": n,
                "bytes": 64 * n,
                "sha256": f"{n:064x}",
                "ids": list(map(str, range(n))),
            }
            for split, n in counts.items()
        },
    }
    _write_json(folder / "environment.json", environment)


def _evaluation(folder: Path, network: Any, images: Any, labels: Any, names: list[str]) -> None:
    """What the task's `evaluation` writes, its figures by the task's own metrics."""
    import torch
    from safetensors.numpy import save_file

    from renshu_tasks.image_classification.metrics import confusion_matrix, evaluate

    (folder / "worst").mkdir(parents=True)
    logits = network.predict_log_proba(images).astype(np.float32)
    tensor, truth = torch.from_numpy(logits), torch.from_numpy(labels)
    probabilities = (tensor / TEMPERATURE).softmax(1)
    predicted = probabilities.argmax(1)
    figures = {"classes": names, "temperature": TEMPERATURE, "thresholds": [0.5] * len(names)}
    figures |= evaluate(probabilities, truth, predicted, names)
    _write_json(folder / "metrics.json", figures)
    counts = confusion_matrix(truth, predicted, len(names)).tolist()
    _write_json(folder / "confusion.json", {"classes": names, "rows": counts})
    arrays = {"probabilities": probabilities.numpy(), "logits": logits, "labels": labels}
    save_file(arrays, folder / "arrays.safetensors")
    scores = probabilities.numpy()
    rows = []
    for place, index in enumerate(np.argsort(scores[np.arange(len(labels)), labels])[:12]):
        row = {
            "id": f"digits/{index:04}",
            "true": names[labels[index]],
            "predicted": names[scores[index].argmax()],
            "confidence": float(scores[index].max()),
            "loss": float(-np.log(scores[index, labels[index]])),
            "image": f"{place:02}.png",
            "overlay": f"{place:02}_cam.png",
        }
        _picture(folder / "worst" / row["image"], images[index])
        _picture(folder / "worst" / row["overlay"], _occlusion(network, images[index]))
        rows.append(row)
    _write_json(folder / "worst.json", rows)


def _occlusion(network: Any, image: Any) -> Any:
    """How much each pixel, set to zero, takes from the predicted class: [64] in [0, 1]."""
    covered = np.tile(image, (64, 1))
    np.fill_diagonal(covered, 0)
    before = network.predict_proba(image[None])[0]
    fall = np.clip(before.max() - network.predict_proba(covered)[:, before.argmax()], 0, None)
    return fall / (fall.max() + 1e-12)


def _picture(file: Path, pixels: Any) -> None:
    from PIL import Image

    large = pixels.reshape(8, 8).repeat(12, 0).repeat(12, 1)
    Image.fromarray((large * 255).astype(np.uint8)).save(file)


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1), encoding="utf-8")


def copy_run(source: Path, target: Path) -> Path:
    """A run folder to change without harm to the others."""
    return Path(shutil.copytree(source, target))


HOSTILE = [
    '<img src=x onerror="window.owned=1">',
    "</script><script>window.owned=2</script>",
    '" onx="window.owned=3',
    "javascript:window.owned=4",
    "--><b>bold</b>",
    "<svg/onload=window.owned=5>",
    "&lt;b&gt;&#60;i>",
    "</td></table><h1>top</h1>",
    "<a href='javascript:owned=6'>x</a>",
    "' onmouseover='owned=7' %{x} ${title}",
]
"""Names that would become markup, script or template if they were not escaped: one a class."""

PLAIN = [(chr(ord("a") + i) * len(name)) for i, name in enumerate(HOSTILE)]
"""Names as long as the hostile ones, of letters."""


def renamed(run: Path, names: list[str]) -> Path:
    """Give a digits run these names: of classes, files, metrics, settings, itself."""
    test = run / "evaluation" / "test"
    old = [str(digit) for digit in range(10)]
    change = dict(zip(old, names, strict=True))
    metrics = json.loads((test / "metrics.json").read_text())
    metrics["classes"] = names
    for row in metrics["per_class"]:
        row["class"] = change[row["class"]]
    metrics[names[0]] = 0.5
    _write_json(test / "metrics.json", metrics)
    rows = json.loads((test / "worst.json").read_text())
    for place, row in enumerate(rows):
        row["true"], row["predicted"] = change[row["true"]], change[row["predicted"]]
        row["id"] = names[place % 10]
        for kind in ("image", "overlay"):
            file = f"{names[place % 10]}{place}{kind}.png".replace("/", "_")
            (test / "worst" / row[kind]).rename(test / "worst" / file)
            row[kind] = file
    _write_json(test / "worst.json", rows)
    environment = json.loads((run / "environment.json").read_text())
    environment |= {"host": names[1], "command": names[2], names[3]: names[4]}
    environment["fingerprint"][names[5]] = environment["fingerprint"].pop("val")
    _write_json(run / "environment.json", environment)
    with (run / "config.yaml").open("a") as file:
        file.write("".join(f"{json.dumps(name)}: {json.dumps(name)}\n" for name in names))
    head, _, table = (run / "metrics.csv").read_text().partition("\n")
    columns = [*head.split(",")[:-1], f"val_{names[0]}"]
    with (run / "metrics.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(columns)
        file.write(table)
    shutil.copytree(test, test.with_name(names[0].replace("/", "_")))
    return run.rename(run.with_name(names[0].replace("/", "_")))
