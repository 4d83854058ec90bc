"""The report's sections about texts, from what `evaluation` left in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from renshu.report import Headline, Section, Table, Text, estimate
from renshu.report.charts import bars, heatmap
from renshu_tasks.common.sections import (
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

WORDS = 6
"""Words that are named of those a decision rests on."""

_HEADLINES = {
    "accuracy": ("accuracy", "%"),
    "macro_f1": ("macro F1", ""),
    "mcc": ("Matthews correlation", ""),
    "entity_f1": ("entity F1", ""),
    "perplexity": ("perplexity", ""),
    "rmse": ("RMSE", ""),
    "pearson": ("correlation", ""),
    "recall_at_1": ("recall at 1", "%"),
    "ece": ("calibration error", ""),
}


@dataclass(frozen=True)
class Evaluation:
    """One evaluated split: its folder, evaluation/<split> of the run, and metrics.json."""

    folder: Path
    metrics: dict[str, Any]

    @property
    def split(self) -> str:
        return self.folder.name

    def read(self, name: str) -> Any:
        """A JSON file of the folder; [] without it."""
        file = self.folder / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []


def sections(run_dir: Path) -> list[Section]:
    """Everything the report says about the evaluation; raises DataError for files it cannot use."""
    if (folder := evaluated(run_dir)) is not None:
        with readable(folder):
            return _sections(Path(run_dir), folder)
    return [Section("Figures", empty="No evaluation yet: renshu evaluate writes it.")]


def _sections(run_dir: Path, folder: Path) -> list[Section]:
    found = Evaluation(folder, json.loads((folder / "metrics.json").read_text("utf-8")))
    parts = [_figures(found), *_texts(run_dir)]
    if (folder / "confusion.json").is_file():
        parts.append(_confusion(found))
    if (folder / "mistakes.json").is_file():
        parts.append(_mistakes(found))
    if (folder / "examples.json").is_file():
        parts.append(_examples(found))
    if (folder / "arrays.safetensors").is_file():
        parts += [_calibration(found), abstention(found.metrics["coverage"], "texts")]
    if found.metrics["head"] == "causal":
        parts.append(_samples(found))
    return [*parts, _use(found)]


def _figures(found: Evaluation) -> Section:
    """The main figures, and precision, recall and F1 of each class."""
    note = f"{found.metrics['samples']} texts"
    headlines = [
        Headline(f"{found.split.capitalize()} {name}", *one, unit, note)
        for key, (name, unit) in _HEADLINES.items()
        if (one := estimate(found.metrics.get(key))) is not None
    ]
    keys = ("class", "precision", "recall", "f1", "support")
    rows = [[row[key] for key in keys] for row in found.metrics.get("per_class", [])]
    columns = ["class", "precision", "recall", "F1", "count"]
    table = Table("Each class", columns, rows, sortable=True, bars=columns[1:4])
    return Section(
        "Classes" if rows else "Figures",
        [table] if rows else [Text(f"{one.name}: {one.value:.4g}") for one in headlines],
        lead=f"Measured on the {note} of the {found.split} part; intervals are 95 % bootstrap over"
        " texts that belong together.",
        headlines=headlines,
        card=True,
    )


def _texts(run_dir: Path) -> list[Section]:
    """What the parts hold after truncation, how long texts are, how much is padding."""
    file = run_dir / "data.json"
    if not file.is_file():
        return []
    data = json.loads(file.read_text(encoding="utf-8"))
    keys = ("rows", "tokens", "labelled_tokens", "cut_rows", "cut_tokens", "ended_rows", "longest")
    audit = [[part, *(counts[key] for key in keys)] for part, counts in data["audit"].items()]
    edges, counts = data["lengths"]["edges"], data["lengths"]["counts"]
    labels = [f"{a}–{b}" for a, b in pairwise(edges)]
    shares = {
        part: [n / max(sum(values), 1) for n in values] for part, values in counts.items() if values
    }
    twins = [
        [kind, found.get("val", 0), found.get("test", 0)]
        for kind, found in zip(
            ("exactly", "but for case, links, handles"), data["duplicates"].values(), strict=True
        )
    ]
    parts = [
        Table("After truncation", ["part", *(key.replace("_", " ") for key in keys)], audit),
        bars("Lengths", labels, shares, y="share of the part", every=3),
        Table("Texts that are in an earlier part", ["equal", "val", "test"], twins),
    ]
    if data["classes"]:
        names = list(data["classes"]["train"])
        balance = {part: [values[n] for n in names] for part, values in data["classes"].items()}
        parts.append(bars("Class balance", names, balance, y="count", wide=len(names) > 20))
    return [
        Section(
            "Texts",
            [*parts, *(Text(note) for note in data["notes"])],
            lead=f"At most {data['max_length']} tokens a text. Of an epoch's tokens"
            f" {1 - 1 / data['padding']:.1%} are padding.",
            card=True,
        )
    ]


def _confusion(found: Evaluation) -> Section:
    """Counts by true and predicted class, and the commonest errors."""
    stored = found.read("confusion.json")
    names, table = stored["classes"], np.array(stored["rows"])
    errors = table - np.diag(table.diagonal())
    shown = np.sort(np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:MOST_CLASSES])
    which = f" of the {len(shown)} most confused classes" if len(shown) < len(names) else ""
    places = [divmod(int(i), len(names)) for i in np.argsort(-errors, axis=None, kind="stable")]
    rows = [
        [names[a], names[b], int(errors[a, b]), float(errors[a, b] / table[a].sum())]
        for a, b in places[:10]
        if errors[a, b]
    ]
    chart = heatmap(
        f"Confusion matrix{which}",
        [names[k] for k in shown],
        table[np.ix_(shown, shown)].tolist(),
        x="predicted",
        y="true",
        alt=f"{table.trace()} of {table.sum()} texts are on the diagonal: predicted right.",
    )
    columns = ["true", "predicted", "texts", "of the class"]
    common = Table("Commonest errors", columns, rows, bars=["of the class"])
    return Section(
        "Confusion",
        [chart, common if rows else Text("No text was misclassified.")],
        lead="A row is a true class; its colours are the shares of its texts in each column.",
    )


def _mistakes(found: Evaluation) -> Section:
    """The most confident mistakes, each with the words that it rests on."""
    rows = found.read("mistakes.json")
    columns = ["text", "true", "predicted"]
    sure = any("confidence" in row for row in rows)
    table = [
        [row["text"], row["true"], row["predicted"], *([row["confidence"], _rests(row)] * sure)]
        for row in rows
    ]
    columns += ["confidence", "rests on"] * sure
    return Section(
        "Mistakes",
        [Table("The most confident first" if sure else "The largest first", columns, table)]
        if rows
        else [],
        lead="Handles, addresses and numbers are hidden unless data.mask_private is false."
        + (" What a decision rests on is told by integrated gradients: the words that spoke"
           " loudest for it (+) and against it (−)." if sure else ""),
        empty="There were none.",
    )  # fmt: skip


def _rests(row: dict[str, Any]) -> str:
    words = sorted(row.get("words", []), key=lambda one: -abs(one["share"]))[:WORDS]
    return ", ".join(
        f"{w['word']} {'+' if w['share'] > 0 else '−'}{abs(w['share']):.2f}" for w in words
    )


def _examples(found: Evaluation) -> Section:
    """A few texts of each class, found and missed."""
    rows = [[row["class"], row["kind"], row["text"]] for row in found.read("examples.json")]
    table = Table("The first of each class", ["class", "", "text"], rows, folded=len(rows) > 30)
    return Section("Examples", [table] if rows else [], empty="No texts were kept.")


def _calibration(found: Evaluation) -> Section:
    """How often decisions of each confidence are right, before and after the temperature."""
    from safetensors.numpy import load_file

    arrays = load_file(found.folder / "arrays.safetensors")
    labels, after = arrays["labels"], arrays["probabilities"]
    several = labels.ndim == 2
    chosen = decided(after, found.metrics["thresholds"], several)
    values = {"before": activated(arrays["logits"], several), "calibrated": after}
    curves = (curve(name, _reliability(one, chosen, labels)) for name, one in values.items())
    diagram = reliability("Reliability", dict(curves))
    return Section(
        "Calibration",
        [diagram],
        lead="Of the decisions with 80 % confidence 80 % should be right: the dotted line. The "
        f"temperature {found.metrics['temperature']:.3g} was chosen on the validation part.",
    )


def _reliability(probabilities: np.ndarray, chosen: np.ndarray, labels: np.ndarray) -> Bins:
    """A text with several labels is as sure as its least sure decision."""
    if labels.ndim == 2:
        confidence = np.where(chosen, probabilities, 1 - probabilities).min(1)
        return binned(confidence, (chosen == labels.astype(bool)).all(1))
    confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
    return binned(confidence, chosen == labels)


def _samples(found: Evaluation) -> Section:
    """What the model writes beside what was given."""
    columns = ("prompt", "reference", "generated")
    rows = [[row[name] for name in columns] for row in found.read("samples.json")]
    return Section(
        "Samples",
        [Table("Side by side", columns, rows)] if rows else [],
        lead="The most probable token at each step, until the model ends by itself.",
        empty="No samples were kept.",
    )


def _use(found: Evaluation) -> Section:
    """What the model is for, and where its figures end."""
    names = found.metrics.get("classes", [])
    what = {
        "classification": "Gives a text one or several of its classes",
        "regression": "Gives a text a number",
        "tokens": "Finds entities in a text, word by word",
        "causal": "Continues a text or answers a conversation",
        "embedding": "Gives a text a vector; texts that mean the same are near each other",
    }[found.metrics["head"]]
    listed = f": {', '.join(names[:50])}" + (", …" if len(names) > 50 else "") if names else ""
    return Section(
        "Use and limits",
        [
            Text(f"{what}{listed}."),
            Text(
                "Any text is answered, also one of another kind or language, often with high "
                "confidence. The figures hold for texts like those measured here: measure and "
                "calibrate again where source, language or time differ."
            ),
        ],
        card=True,
    )
