"""After training: choose on the validation part, measure a part once, write what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renshu_tasks.common.files import write_json
from renshu_tasks.segmentation import calibration, inference, metrics
from renshu_tasks.segmentation import fingerprint as fp
from renshu_tasks.segmentation.case import IGNORE, Case
from renshu_tasks.segmentation.prepare import prepare
from renshu_tasks.segmentation.readers import read_scan
from renshu_tasks.segmentation.writing import write_mask

if TYPE_CHECKING:
    from renshu_tasks.segmentation.data import SegmentationData
    from renshu_tasks.segmentation.module import Segmenter

PURPOSE = "Research use, not a medical device."
_VOXELS = 20_000
"""Voxels a batch that calibration looks at, evenly spread."""


def write_plan(data: SegmentationData, run_dir: Path) -> None:
    """plan.md, the plan in words, and fingerprint.json, into the run folder."""
    (run_dir / "plan.md").write_text(data.plan.explain(), encoding="utf-8")
    write_json(run_dir / "fingerprint.json", fp.fingerprint(data.facts, data.classes))


@torch.no_grad()
def collect(module: Segmenter, data: SegmentationData, part: str) -> tuple[Tensor, Tensor]:
    """Logits float32 [N, K] and labels int64 [N] of known voxels in the fixed patches of a part."""
    mode = module.training
    module.eval()
    logits, labels = [], []
    loader = data.test_dataloader() if part == "test" else data.val_dataloader()
    for batch in loader:
        found = module(batch["image"].to(module.device)).float().cpu().flatten(2).movedim(1, 2)
        mask = batch["mask"].flatten(1).long()
        known = (mask != IGNORE).nonzero()
        some = known[:: max(1, len(known) // _VOXELS)]
        logits.append(found[some[:, 0], some[:, 1]])
        labels.append(mask[some[:, 0], some[:, 1]])
    module.train(mode)
    return torch.cat(logits), torch.cat(labels)


def calibrate(module: Segmenter, data: SegmentationData) -> None:
    """Choose temperature and threshold on the validation part; both are buffers of the module."""
    options = module.training_options
    data.setup("validate")
    logits, labels = collect(module, data, "val")
    if options.calibrate:
        module.temperature.fill_(calibration.fit_temperature(logits, labels))
    if options.threshold != "dice":
        module.threshold.fill_(options.threshold)
    elif len(data.classes) == 2:
        module.threshold.fill_(calibration.best_threshold(_whole_scores(module, data)))


def _whole_scores(module: Segmenter, data: SegmentationData) -> Tensor:
    """`calibration.count_scores` over the whole validation cases.

    Not over patches: half of them are laid around the structure, where it is far more frequent.
    """
    options, plan = module.training_options, module.plan
    counts = torch.zeros(2, 100, dtype=torch.int64)
    mode = module.training
    module.eval()
    for case in data.cases("val"):
        if case.annotated is not None and 1 not in case.annotated:
            continue
        prepared = prepare(case, plan)
        assert prepared.mask is not None
        logits = inference.logits(
            module.network,
            prepared.image,
            plan.patch,
            options.overlap,
            2,
            options.mirror if options.tta else (),
        )
        mask = torch.from_numpy(prepared.mask)
        known = mask != IGNORE
        scores = (logits / module.temperature.cpu()).softmax(0)[1]
        counts += calibration.count_scores(scores[known], mask[known])
    module.train(mode)
    return counts


def evaluate(
    module: Segmenter, data: SegmentationData, split: str, run_dir: Path
) -> dict[str, Any]:
    """Measure one part, "val" or "test"; write `run_dir`/evaluation/<split>/; return the figures.

    Writes metrics.json, cases.json (a row a case and class), the predicted masks in masks/, and
    the best, median and worst case in overlays/ with overlays.json.
    """
    folder = Path(run_dir) / "evaluation" / split
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    tables, cases, patients, confidences = [], [], [], []
    for number, case in enumerate(data.cases(split)):
        answer = module.answer(case)
        file = write_mask(folder / "masks" / f"{number:04d}", answer.mask, case)
        rows = metrics.case_metrics(
            answer.mask,
            case.mask,
            spacing=case.spacing,
            classes=data.measured_classes(case),
            tolerance_mm=module.training_options.surface_tolerance_mm,
        )
        tables.append(rows)
        patients.append(case.patient or case.id)
        confidences.append(answer.confidence)
        cases.append({"case": case.id, "file": file.name, "dice": mean_dice(rows)})
    found = {"classes": data.classes, "purpose": PURPOSE, **metrics.summarise(tables, patients)}
    data.setup("test" if split == "test" else "validate")
    logits, labels = collect(module, data, split)
    found |= {
        "temperature": float(module.temperature),
        "threshold": float(module.threshold) if len(data.classes) == 2 else None,
        "calibration": calibration.calibration(
            (logits / module.temperature.cpu()).softmax(1), labels
        ),
        "coverage": calibration.coverage(
            np.array(confidences), np.array([one["dice"] for one in cases], dtype=np.float64)
        ),
        "definitions": metrics.definitions("monai", module.training_options.surface_tolerance_mm),
        "tolerance_mm": module.training_options.surface_tolerance_mm,
    }
    rows = [
        {"case": one["case"], "patient": patient, "confidence": sure, **row}
        for one, patient, sure, table in zip(cases, patients, confidences, tables, strict=True)
        for row in table
    ]
    write_json(folder / "cases.json", rows)
    write_overlays(data, split, cases, folder)
    write_json(folder / "metrics.json", found)
    return found


def mean_dice(rows: Sequence[dict[str, Any]]) -> float | None:
    """Mean Dice of a case's classes; None where none of them is defined."""
    found = [row["dice"] for row in rows if row["dice"] is not None]
    return float(np.mean(found)) if found else None


def write_overlays(
    data: SegmentationData, split: str, cases: list[dict[str, Any]], folder: Path
) -> None:
    """Image, truth and prediction of the best, median and worst case, for the report."""
    from safetensors.numpy import save_file

    ranked = [number for number, one in enumerate(cases) if one["dice"] is not None]
    ranked.sort(key=lambda number: cases[number]["dice"], reverse=True)
    if not ranked:
        return
    (folder / "overlays").mkdir(exist_ok=True)
    places = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    rows, seen = [], set()
    for rank, number in places.items():
        if number in seen:
            continue
        seen.add(number)
        case = data.case(data.parts[split][number])
        arrays = {
            "image": np.ascontiguousarray(case.image[0]),
            "truth": np.ascontiguousarray(case.mask),
            "predicted": _read_mask(folder / "masks" / cases[number]["file"], case),
            "affine": case.affine,
        }
        save_file(arrays, folder / "overlays" / f"{rank}.safetensors")
        row = {name: cases[number][name] for name in ("case", "dice")}
        rows.append({"rank": rank, "file": f"overlays/{rank}.safetensors", **row})
    write_json(folder / "overlays.json", rows)


def _read_mask(file: Path, case: Case) -> np.ndarray:
    scan = read_scan(file, max_voxels=case.image[0].size, picture_spacing=[1, 1], mask=True)
    return np.ascontiguousarray(scan.voxels, dtype=np.int16)
