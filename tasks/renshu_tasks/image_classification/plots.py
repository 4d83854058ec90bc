"""The report's sections about a classifier, from what `evaluation` left in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from renshu.report import Headline, Picture, Pictures, Section, Table, Text, estimate
from renshu.report.charts import bars, heatmap
from renshu_tasks.common.sections import (
    BINS,
    Bins,
    abstention,
    activated,
    binned,
    curve,
    decided,
    evaluated,
    readable,
    reliability,
)

MOST_CLASSES = 40
"""So many classes are told apart in a picture of the confusion matrix."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluated split.

    Attributes:
        folder: evaluation/<split> of the run.
        metrics: metrics.json.
        probabilities: float32 [N, K], calibrated.
        logits: float32 [N, K], before the temperature.
        labels: int64 [N], or float32 [N, K] when there may be several.
    """

    folder: Path
    metrics: dict[str, Any]
    probabilities: np.ndarray
    logits: np.ndarray
    labels: np.ndarray

    @property
    def split(self) -> str:
        return self.folder.name

    @property
    def classes(self) -> list[str]:
        return self.metrics["classes"]

    @property
    def several(self) -> bool:
        return self.labels.ndim == 2

    @property
    def decisions(self) -> np.ndarray:
        """Class int64 [N], or bool [N, K] when there may be several."""
        return decided(self.probabilities, self.metrics["thresholds"], self.several)


def sections(run_dir: Path) -> list[Section]:
    """Everything the report says about the evaluation; raises DataError for files it cannot use."""
    if (folder := evaluated(run_dir)) is not None:
        with readable(folder):
            return _sections(folder)
    return [Section("Classes", empty="No evaluation yet: renshu evaluate writes it.")]


def _sections(folder: Path) -> list[Section]:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    arrays = load_file(folder / "arrays.safetensors")
    names = ("probabilities", "logits", "labels")
    found = Evaluation(folder, metrics, *(arrays[name] for name in names))
    confusion = [] if found.several else [_confusion(found)]
    rest = [
        _classes(found),
        _worst(found),
        _calibration(found),
        abstention(found.metrics["coverage"], "pictures"),
    ]
    return [*confusion, *rest, _use(found)]


def _confusion(found: Evaluation) -> Section:
    """Counts by true and predicted class, and the commonest errors."""
    counts = json.loads((found.folder / "confusion.json").read_text(encoding="utf-8"))["rows"]
    names, table = found.classes, np.array(counts)
    errors = table - np.diag(table.diagonal())
    shown = np.sort(np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:MOST_CLASSES])
    which = f" of the {len(shown)} most confused classes" if len(shown) < len(names) else ""
    places = [divmod(int(i), len(names)) for i in np.argsort(-errors, axis=None, kind="stable")]
    rows = [
        [names[a], names[b], int(errors[a, b]), float(errors[a, b] / table[a].sum())]
        for a, b in places[:10]
        if errors[a, b]
    ]
    columns = ["true", "predicted", "pictures", "of the class"]
    chart = heatmap(
        f"Confusion matrix{which}",
        [names[k] for k in shown],
        table[np.ix_(shown, shown)].tolist(),
        x="predicted",
        y="true",
        alt=f"{table.trace()} of {table.sum()} pictures are on the diagonal: predicted right.",
    )
    common = Table("Commonest errors", columns, rows, bars=["of the class"])
    return Section(
        "Confusion",
        [chart, common if rows else Text("No picture was misclassified.")],
        lead="A row is a true class; its colours are the shares of its pictures in each column.",
    )


def _classes(found: Evaluation) -> Section:
    """Precision, recall, F1 and AUROC of each class, and how many pictures it has."""
    keys = ("class", "precision", "recall", "f1", "auroc", "support")
    rows = [[row[key] for key in keys] for row in found.metrics["per_class"]]
    columns = ["class", "precision", "recall", "F1", "AUROC", "pictures"]
    table = Table("Each class", columns, rows, sortable=True, bars=columns[1:5])
    support = [row[-1] for row in rows]
    made = found.decisions
    chosen = made.sum(0) if found.several else np.bincount(made, minlength=len(rows))
    balance = bars(
        "Class balance",
        found.classes,
        {"true": support, "predicted": chosen.tolist()},
        y="pictures",
        wide=len(rows) > 20,
    )
    return Section(
        "Classes",
        [table, balance],
        lead=f"Measured on the {len(found.labels)} pictures of the {found.split} part. A dash: the "
        "class has no picture there, or was never predicted.",
        headlines=_headlines(found),
        card=True,
    )


def _headlines(found: Evaluation) -> list[Headline]:
    kinds = {
        "accuracy": ("accuracy", "%"),
        "macro_f1": ("macro F1", ""),
        "auroc": ("AUROC", ""),
        "ece": ("calibration error", ""),
    }
    note = f"{len(found.labels)} pictures"
    return [
        Headline(f"{found.split.capitalize()} {name}", *one, unit, note)
        for key, (name, unit) in kinds.items()
        if (one := estimate(found.metrics[key])) is not None
    ]


def _calibration(found: Evaluation) -> Section:
    """How often decisions of each confidence are right, before and after the temperature."""
    curves = {
        "before": _reliability(found, activated(found.logits, found.several)),
        "calibrated": _reliability(found, found.probabilities),
    }
    diagram = reliability("Reliability", dict(curve(*one) for one in curves.items()))
    spread = bars(
        "Confidence of the decisions",
        [f"{100 * i / BINS:.0f}–{100 * (i + 1) / BINS:.0f} %" for i in range(BINS)],
        {name: bins[2].tolist() for name, bins in curves.items()},
        y="decisions",
        every=3,
    )
    return Section(
        "Calibration",
        [diagram, spread],
        lead="Of the decisions with 80 % confidence 80 % should be right: the dotted line. The "
        f"temperature {found.metrics['temperature']:.3g} was chosen on the validation part.",
    )


def _reliability(found: Evaluation, probabilities: np.ndarray) -> Bins:
    """Each decision on a class counts for itself where there are several."""
    chosen = found.decisions
    if found.several:
        confidence = np.where(chosen, probabilities, 1 - probabilities).ravel()
        return binned(confidence, (chosen == found.labels.astype(bool)).ravel())
    confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
    return binned(confidence, chosen == found.labels)


def _worst(found: Evaluation) -> Section:
    """The pictures with the highest loss."""
    file = found.folder / "worst.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    grid = Pictures("Highest loss first", [_picture(found, row) for row in rows])
    return Section(
        "Worst pictures",
        [grid] if rows else [],
        lead="Where the model was most wrong. A second picture shows what the prediction rests on "
        "(Grad-CAM): red much, blue nothing.",
        empty="No pictures were kept.",
    )


def _picture(found: Evaluation, row: dict[str, Any]) -> Picture:
    folder = Path("evaluation", found.split, "worst")
    shown = [(folder / row["image"], f"{row['id']}: {row['true']}, predicted {row['predicted']}")]
    if row.get("overlay"):
        shown.append((folder / row["overlay"], f"{row['id']}: what the prediction rests on"))
    facts = [("true", row["true"]), ("predicted", row["predicted"])]
    confidence = float(row["confidence"])
    return Picture(shown, row["id"], [*facts, ("confidence", f"{confidence:.1%}")], confidence)


def _use(found: Evaluation) -> Section:
    """What the model is for, and where its figures end."""
    names = ", ".join(found.classes[:50]) + (", …" if len(found.classes) > 50 else "")
    answer = "any number of" if found.several else "one of"
    return Section(
        "Use and limits",
        [
            Text(f"Gives a picture {answer} {len(found.classes)} classes: {names}."),
            Text(
                "A picture of anything else is answered in the same classes, often with high "
                "confidence. The figures hold for pictures taken like those measured here: measure "
                "and calibrate again where camera, place or population differ."
            ),
        ],
        card=True,
    )
