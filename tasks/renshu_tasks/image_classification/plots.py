"""The report's sections about a classifier, from what its evaluation left in the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from renshu.errors import DataError
from renshu.report import Headline, Picture, Pictures, Section, Table, Text
from renshu.report.charts import bars, heatmap, lines

BINS = 15
COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.5)


@dataclass(frozen=True)
class Evaluation:
    """One evaluated split.

    Attributes:
        folder: evaluation/<split> of the run.
        metrics: metrics.json.
        classes: their names, K of them.
        probabilities: [N, K] float32, calibrated.
        labels: [N] int64; [N, K] of 0 and 1 where a picture may have several.
    """

    folder: Path
    metrics: dict[str, Any]
    classes: list[str]
    probabilities: np.ndarray
    labels: np.ndarray

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2


def sections(run_dir: Path) -> list[Section]:
    """Everything the report says about the newest evaluation; raises DataError for broken files."""
    found = _load(Path(run_dir))
    if found is None:
        return [Section("Classes", empty="No evaluation yet: renshu evaluate writes it.")]
    confusion = [] if found.multi_label else [_confusion(found)]
    return [
        *confusion,
        _classes(found),
        _worst(found),
        _calibration(found),
        _abstention(found),
        _use(found),
    ]


def _load(run_dir: Path) -> Evaluation | None:
    """The test part if it was evaluated, else the validation part."""
    for split in ("test", "val"):
        folder = run_dir / "evaluation" / split
        if (folder / "metrics.json").is_file() and (folder / "arrays.safetensors").is_file():
            return _read(folder)
    return None


def _read(folder: Path) -> Evaluation:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "arrays.safetensors")
        probabilities, labels = arrays["probabilities"], arrays["labels"]
        classes = [str(name) for name in metrics["classes"]]
    except Exception as error:  # safetensors has an error class of its own
        raise DataError(f"the evaluation cannot be read: {error!r}", where=folder) from error
    shape = (len(labels), len(classes))
    if probabilities.shape != shape or labels.shape not in (shape, shape[:1]):
        raise DataError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit together",
            where=folder / "arrays.safetensors",
            allowed=f"one row a picture and one column for each of the {len(classes)} classes",
        )
    return Evaluation(folder, metrics, classes, probabilities, labels)


def _confusion(found: Evaluation) -> Section:
    count = len(found.classes)
    table = np.zeros((count, count), dtype=np.int64)
    predicted = found.probabilities.argmax(1)
    np.add.at(table, (found.labels, predicted), 1)
    errors = table - np.diag(table.diagonal())
    places = [divmod(int(i), count) for i in np.argsort(-errors, axis=None, kind="stable")[:10]]
    rows = [
        [found.classes[a], found.classes[b], int(errors[a, b]), errors[a, b] / table[a].sum()]
        for a, b in places
        if errors[a, b]
    ]
    right = int(table.trace())
    chart = heatmap(
        "Confusion matrix",
        found.classes,
        table.tolist(),
        x="predicted",
        y="true",
        alt=f"{right} of {table.sum()} pictures are on the diagonal: predicted right.",
    )
    common = Table(
        "Most frequent errors",
        ["true", "predicted", "pictures", "of the class"],
        rows,
        bars=["of the class"],
    )
    return Section(
        "Confusion",
        [chart, common] if rows else [chart, Text("No picture was misclassified.")],
        lead="A row is a true class; its colours are the shares of its pictures in each column.",
    )


def _classes(found: Evaluation) -> Section:
    truth, decided = _decisions(found)
    hits = (truth & decided).sum(0)
    support, chosen = truth.sum(0), decided.sum(0)
    with np.errstate(invalid="ignore"):
        precision, recall = hits / chosen, hits / support
        f1 = 2 * hits / (chosen + support)
    columns = ["class", "precision", "recall", "F1", "pictures"]
    values = zip(found.classes, precision, recall, f1, support, strict=True)
    rows = [[name, float(p), float(r), float(f), int(n)] for name, p, r, f, n in values]
    table = Table("Each class", columns, rows, sortable=True, bars=("precision", "recall", "F1"))
    balance = bars(
        "Class balance",
        found.classes,
        {"true": support.tolist(), "predicted": chosen.tolist()},
        y="pictures",
        wide=True,
    )
    return Section(
        "Classes",
        [table, balance],
        lead="A dash: the class has no picture here, or was never predicted.",
        headlines=_headlines(found),
        card=True,
    )


def _decisions(found: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """What is true and what was decided, [N, K] bool each."""
    if found.multi_label:
        thresholds = np.asarray(found.metrics.get("thresholds", 0.5))
        return found.labels > 0.5, found.probabilities >= thresholds
    every = np.arange(len(found.classes))
    predicted = found.probabilities.argmax(1)
    return found.labels[:, None] == every, predicted[:, None] == every


def _headlines(found: Evaluation) -> list[Headline]:
    kinds = (("accuracy", "%"), ("macro_f1", ""), ("auroc", ""), ("ece", ""))
    result = []
    for name, unit in kinds:
        value = found.metrics.get(name)
        note = f"{len(found.labels)} pictures of {found.folder.name}"
        if isinstance(value, dict):
            title = f"{found.folder.name} {name}".capitalize().replace("_", " ")
            result.append(
                Headline(title, value["value"], value.get("low"), value.get("high"), unit, note)
            )
    return result


def _calibration(found: Evaluation) -> Section:
    """How often a prediction of each confidence is right, before and after the temperature."""
    temperature = float(found.metrics.get("temperature", 1.0))
    after = _reliability(found, found.probabilities)
    curves = {"calibrated": after}
    if temperature != 1.0:
        curves = {"as trained": _reliability(found, _before(found, temperature)), **curves}
    series = {
        f"{name}, ECE {_ece(bins):.3f}": (bins[0][bins[2] > 0], bins[1][bins[2] > 0])
        for name, bins in curves.items()
    }
    unit = {"range": [0, 1], "tickformat": ".0%"}
    return Section(
        "Calibration",
        [
            lines(
                "Reliability",
                {name: (x.tolist(), y.tolist()) for name, (x, y) in series.items()},
                x="confidence",
                y="right",
                layout={
                    "xaxis": unit | {"title": {"text": "confidence"}},
                    "yaxis": unit | {"title": {"text": "right"}},
                },
                diagonal=True,
            ),
            bars(
                "How confident the predictions are",
                [f"{100 * i / BINS:.0f}–{100 * (i + 1) / BINS:.0f} %" for i in range(BINS)],
                {name: bins[2].tolist() for name, bins in curves.items()},
                y="predictions",
            ),
        ],
        lead="Of the predictions made with 80 % confidence, 80 % should be right: the dotted line. "
        f"The temperature, chosen on the validation part, is {temperature:.3g}.",
    )


def _before(found: Evaluation, temperature: float) -> np.ndarray:
    """The probabilities without the temperature: softmax(T · log p), for p = softmax(z / T)."""
    logs = np.log(np.clip(found.probabilities, 1e-30, 1)) * temperature
    powers = np.exp(logs - logs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _reliability(
    found: Evaluation, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share right and number of predictions in each of BINS equal bins."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == found.labels
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = np.bincount(place, confidence, BINS) / counts
        shares = np.bincount(place, right, BINS) / counts
    return means, shares, counts


def _ece(bins: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Expected calibration error (Guo et al. 2017): the mean distance from the ideal line."""
    means, shares, counts = bins
    return float(np.nansum(np.abs(shares - means) * counts) / counts.sum())


def _abstention(found: Evaluation) -> Section:
    """Errors among the most confident share of the pictures (El-Yaniv and Wiener 2010)."""
    confidence = found.probabilities.max(1)
    wrong = found.probabilities.argmax(1) != found.labels
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(order) + 1)
    coverage, risk = kept / len(order), np.cumsum(wrong[order]) / kept
    rows = []
    for share in COVERAGES:
        last = max(round(share * len(order)), 1) - 1
        rows.append([f"{share:.0%}", float(confidence[order[last]]), float(risk[last])])
    share = {"tickformat": ".0%", "rangemode": "tozero"}
    return Section(
        "Abstention",
        [
            lines(
                "Errors among the answered",
                {"error": (coverage.tolist(), risk.tolist())},
                x="share answered",
                layout={
                    "xaxis": share | {"title": {"text": "share answered"}},
                    "yaxis": {"tickformat": ".1%", "rangemode": "tozero"}
                    | {"title": {"text": "error"}},
                },
            ),
            Table("Answer only when sure", ["answered", "confidence from", "error"], rows),
        ],
        lead="What the error becomes if the least confident predictions are left to a person.",
    )


def _worst(found: Evaluation) -> Section:
    """The pictures with the largest loss."""
    file = found.folder / "worst.json"
    empty = "No pictures were kept."
    if not file.is_file():
        return Section("Worst pictures", empty=empty)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        items = [_picture(found, row) for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"the list of worst pictures cannot be read: {error!r}", where=file
        ) from error
    lead = "The pictures with the highest loss. Beside each, where the network looked (Grad-CAM)."
    grid = [Pictures("True class, prediction and confidence", items)] if items else []
    return Section("Worst pictures", grid, lead=lead, empty=empty)


def _picture(found: Evaluation, row: dict[str, Any]) -> Picture:
    folder = Path("evaluation", found.folder.name, "worst")
    files = [(folder / row["image"], f"{row['id']}: {row['true']}, predicted {row['predicted']}")]
    if row.get("overlay"):
        files.append((folder / row["overlay"], f"{row['id']}: where the network looked"))
    confidence = float(row["confidence"])
    return Picture(
        files,
        str(row["id"]),
        [("true", row["true"]), ("predicted", row["predicted"]), ("confidence", confidence)],
        confidence,
    )


def _use(found: Evaluation) -> Section:
    names: Sequence[str] = found.classes
    return Section(
        "Use and limits",
        [
            Text(
                f"Sorts a picture into one of {len(names)} classes: {', '.join(names[:50])}"
                f"{', …' if len(names) > 50 else ''}."
            ),
            Text(
                "A picture of anything else gets one of these classes too, often with high "
                "confidence. The figures hold for pictures taken like those measured here: measure "
                "again, and calibrate again, where camera, site or population differ."
            ),
        ],
        card=True,
    )
