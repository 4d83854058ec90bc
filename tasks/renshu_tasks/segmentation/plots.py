"""The report's sections about a segmentation, from what `evaluation` left in the run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renshu.report import Chart, Headline, Picture, Pictures, Section, Table, Text, estimate
from renshu.report.charts import lines
from renshu_tasks.common.sections import SHARE, evaluated, readable, reliability
from renshu_tasks.segmentation import geometry
from renshu_tasks.segmentation.case import voxel_spacing

PURPOSE = "Research use, not a medical device."

COLOURS = np.array(
    [[230, 85, 60], [60, 150, 230], [90, 190, 90], [225, 175, 45], [160, 100, 210], [70, 190, 190]],
    np.float64,
)
"""Of the classes 1, 2, …, again from the first after the last."""

SIDE = 220
"""Pixels of the longest side of a drawn plane."""

PLANES = ("sagittal", "coronal", "axial")
_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95_mm": "HD95 mm",
    "asd_mm": "ASD mm",
    "nsd": "NSD",
    "lesion_f1": "lesion F1",
    "volume_error": "volume error",
}


@dataclass(frozen=True)
class Evaluation:
    """One evaluated split.

    Attributes:
        folder: evaluation/<split> of the run.
        metrics: metrics.json.
        rows: cases.json: a row a case and class.
    """

    folder: Path
    metrics: dict[str, Any]
    rows: list[dict[str, Any]]


def sections(run_dir: Path) -> list[Section]:
    """Everything the report says about the evaluation; raises DataError for files it cannot use."""
    if (folder := evaluated(run_dir)) is not None:
        with readable(folder):
            return _sections(folder)
    return [
        Section("Structures", empty="No evaluation yet: renshu evaluate writes it."),
        _use(None),
    ]


def _sections(folder: Path) -> list[Section]:
    files = [(folder / name).read_text("utf-8") for name in ("metrics.json", "cases.json")]
    found = Evaluation(folder, *(json.loads(text) for text in files))
    rest = [_volumes(found), _calibration(found), _abstention(found)]
    return [_structures(found), _cases(found), *rest, _use(found)]


def _structures(found: Evaluation) -> Section:
    """The mean of each figure by class, what it counts, and what it is."""
    metrics = found.metrics
    means = [*metrics["per_class"], {"class": "mean", **metrics}]
    counts = ("used", "absent", "missed", "invented")
    rows = [
        [row["class"], *(row[figure]["value"] for figure in _NAMES), *map(row["dice"].get, counts)]
        for row in means
    ]
    definitions = [[_NAMES[name], said] for name, said in metrics["definitions"].items()]
    return Section(
        "Structures",
        [
            Table("Each structure", ["structure", *_NAMES.values(), *counts], rows, sortable=True),
            Table("What the figures are", ["figure", "definition"], definitions),
        ],
        lead=f"{PURPOSE} Means over the {metrics['cases']} cases of {metrics['patients']} patients "
        f"of the {found.folder.name} part. A structure in neither mask is absent and in no mean; a "
        "missed or invented one counts as the worst there is, for distances the diagonal of the "
        "image.",
        headlines=list(_headlines(found)),
        card=True,
    )


def _headlines(found: Evaluation) -> Iterator[Headline]:
    for figure in ("dice", "hd95_mm", "nsd"):
        one = estimate(found.metrics[figure])
        if one is not None:
            name = f"{found.folder.name.capitalize()} {_NAMES[figure].removesuffix(' mm')}"
            unit = "mm" if figure.endswith("_mm") else ""
            used = found.metrics[figure]["used"]
            note = f"{used} structures in {found.metrics['cases']} cases"
            yield Headline(name, *one, unit, note)


def _cases(found: Evaluation) -> Section:
    """The best, the median and the worst case, and a table of all."""
    file = found.folder / "overlays.json"
    overlays = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    items = [_picture(found, row) for row in overlays]
    columns = ["case", "structure", "state", *_NAMES.values(), "predicted ml", "reference ml"]
    keys = ["case", "class", "state", *_NAMES, "predicted_ml", "reference_ml"]
    rows = [[row[key] for key in keys] for row in found.rows]
    table = Table(f"All {len(rows)} structures", columns, rows, sortable=True, folded=True)
    return Section(
        "Cases",
        [Pictures("Best, median and worst", items), table] if items else [table],
        lead="Filled: the reference. Outlined: the prediction. Each plane is the one with most of "
        "both; the patient's head or front is up, the right on the left.",
    )


def _picture(found: Evaluation, row: dict[str, Any]) -> Picture:
    from PIL import Image
    from safetensors.numpy import load_file

    arrays = load_file(found.folder / row["file"])
    shown = []
    for name, pixels in planes(*(arrays[k] for k in ("image", "truth", "predicted", "affine"))):
        file = found.folder / Path(row["file"]).with_suffix(f".{name}.png")
        Image.fromarray(pixels).save(file)
        inside = Path("evaluation", found.folder.name, row["file"]).with_name(file.name)
        shown.append((inside, f"{row['rank']} case, {name}: reference and prediction"))
    return Picture(shown, f"{row['rank']}: {row['case']}", [("mean Dice", row["dice"])])


def planes(
    image: NDArray[np.float32],
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Three planes of a volume (one of a picture), each its name and pixels uint8 [H, W, 3].

    Arrays are [D, H, W] or [H, W] on one grid. Volumes are turned to the patient's axes, pixels are
    square in millimetres, and grey goes from the 1st to the 99th percentile of the image.
    """
    low, high = np.percentile(image[np.isfinite(image)], [1, 99])
    grey = np.clip((image - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
    if image.ndim == 2:
        yield "picture", _drawn([grey, truth, predicted], voxel_spacing(affine, 2))
        return
    shape, target = geometry.canonical_grid(image.shape, affine)
    turned = [
        geometry.resample_mask(values, affine, shape, target) for values in (grey, truth, predicted)
    ]
    spacing = voxel_spacing(target)
    both = (turned[1] > 0) | (turned[2] > 0)
    for axis, name in enumerate(PLANES):
        others = tuple(k for k in range(3) if k != axis)
        most = int(both.sum(others).argmax()) if both.any() else shape[axis] // 2
        # Rows go down: from head to foot, or from front to back; columns from right to left.
        cut = [np.flip(values.take(most, axis).T, (0, 1)) for values in turned]
        yield name, _drawn(cut, [spacing[k] for k in reversed(others)])


def _drawn(plane: Sequence[NDArray[Any]], spacing: Sequence[float]) -> NDArray[np.uint8]:
    """Grey, reference filled and prediction outlined in the colour of the class."""
    lengths = [n * mm for n, mm in zip(plane[0].shape, spacing, strict=True)]
    size = [max(1, round(SIDE * length / max(lengths))) for length in lengths]
    places = [
        np.arange(pixels) * n // pixels for pixels, n in zip(size, plane[0].shape, strict=True)
    ]
    grey, truth, predicted = (values[np.ix_(*places)] for values in plane)
    colours = COLOURS[(np.arange(max(truth.max(), predicted.max(), 1) + 1) - 1) % len(COLOURS)]
    pixels = np.repeat(255.0 * grey[..., None], 3, axis=2)
    filled = truth > 0
    pixels[filled] = 0.6 * pixels[filled] + 0.4 * colours[truth[filled]]
    padded = np.pad(predicted, 1, mode="edge")
    same = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    edge = (predicted > 0) & np.any([predicted != other for other in same], axis=0)
    pixels[edge] = colours[predicted[edge]]
    return pixels.round().astype(np.uint8)


def _volumes(found: Evaluation) -> Section:
    """Bland and Altman 1986 (doi 10.1016/S0140-6736(86)90837-8): differences against means."""
    names = [row["class"] for row in found.metrics["per_class"]]
    pairs = {
        name: np.array(
            [
                (row["predicted_ml"], row["reference_ml"])
                for row in found.rows
                if row["class"] == name
                and row["state"] != "absent"
                and row["reference_ml"] is not None
            ],
            np.float64,
        ).reshape(-1, 2)
        for name in names
    }
    some = {name: volumes for name, volumes in pairs.items() if len(volumes) > 1}
    return Section(
        "Volume agreement",
        [part for name, volumes in some.items() for part in _bland_altman(name, volumes)],
        lead="A dot is a case. The full line is the mean difference, between the dotted ones lie "
        "95 % of the differences if they are normal.",
        empty="Two cases with a volume in millilitres are needed for it.",
    )


def _bland_altman(name: str, volumes: NDArray[np.float64]) -> Iterator[Chart | Table]:
    means, apart = volumes.mean(1), volumes[:, 0] - volumes[:, 1]
    bias, spread = float(apart.mean()), 1.96 * float(apart.std(ddof=1))
    limits = {"bias": bias, "lower limit": bias - spread, "upper limit": bias + spread}
    ends = [float(means.min()), float(means.max())]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": "case",
        "x": means.tolist(),
        "y": apart.tolist(),
    }
    drawn = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": which,
            "x": ends,
            "y": [height, height],
            "line": {"color": "var(--muted)", "dash": "solid" if which == "bias" else "dot"},
        }
        for which, height in limits.items()
    ]
    rows = [[float(mean), float(gap)] for mean, gap in zip(means, apart, strict=True)]
    yield Chart(
        f"Volume of {name}",
        alt=f"Predicted minus reference volume of {name} over their mean: bias {bias:.3g} ml, "
        f"limits of agreement {bias - spread:.3g} to {bias + spread:.3g} ml.",
        traces=[dots, *drawn],
        layout={
            "xaxis": {"title": {"text": "mean of both, ml"}},
            "yaxis": {"title": {"text": "predicted - reference, ml"}},
            "showlegend": False,
        },
        table=Table(f"Volume of {name}", ["mean, ml", "difference, ml"], rows),
    )
    yield Table(f"Agreement of {name}, ml", [*limits, "cases"], [[*limits.values(), len(volumes)]])


def _calibration(found: Evaluation) -> Section:
    """How often voxels of each confidence are right."""
    figures = found.metrics["calibration"]
    points = [[bin[key] for bin in figures["bins"]] for key in ("confidence", "accuracy")]
    error = f"calibrated: error {figures['ece']:.3f}"
    chart = reliability("Reliability of voxels", {error: (points[0], points[1])})
    return Section(
        "Calibration",
        [chart] if figures["bins"] else [],
        lead=f"Of the voxels with 80 % confidence 80 % should be right: the dotted line. The "
        f"temperature {found.metrics['temperature']:.3g} was chosen on the validation part; "
        f"{figures['voxels']} voxels around the structures were looked at.",
    )


def _abstention(found: Evaluation) -> Section:
    """What the error becomes if only the surest cases are accepted."""
    rows = found.metrics["coverage"]
    points = [row["coverage"] for row in rows], [row["risk"] for row in rows]
    chart = lines(
        "1 - Dice among the accepted",
        {"1 - Dice": points},
        x="share accepted",
        layout={
            "xaxis": SHARE | {"title": {"text": "share accepted"}},
            "yaxis": {"rangemode": "tozero", "title": {"text": "1 - Dice"}},
        },
    )
    return Section(
        "Abstention",
        [chart] if rows else [],
        lead="What the error becomes if the least confident cases are left to a person.",
    )


def _use(found: Evaluation | None) -> Section:
    """What the model is for, and where its figures end."""
    parts = [Text(PURPOSE)]
    if found is not None:
        names = ", ".join(row["class"] for row in found.metrics["per_class"])
        parts += [
            Text(f"Marks in a scan: {names}."),
            Text(
                "The figures hold for patients, scanners and sequences like those measured here: "
                "measure again where they differ. Masks lie in the space of the file they were "
                "made for; look at them over the scan before anything rests on them."
            ),
        ]
    return Section("Use and limits", parts, card=True)
