"""A trained segmenter in one folder: network, plan, pre- and post-processing, without renshu.

model.onnx maps prepared patches to logits; model.py, which needs numpy, scipy and onnxruntime
alone, turns, resamples and normalises a scan, slides the window, and turns the logits back. Plan
and temperature are JSON: nothing in the folder is unpickled or evaluated.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from renshu.cli.export_onnx import write_onnx
from renshu.task import Case as Example
from renshu.task import Exported
from renshu_tasks.common.files import write_json
from renshu_tasks.segmentation import inference
from renshu_tasks.segmentation.case import Case
from renshu_tasks.segmentation.evaluation import PURPOSE
from renshu_tasks.segmentation.prepare import prepare

if TYPE_CHECKING:
    from renshu_tasks.segmentation.data import SegmentationData
    from renshu_tasks.segmentation.module import Segmenter

TOLERANCE = 1e-4
_SIZES = (0.6, 1.0, 1.7)
"""Sides of the volumes of noise that the exported model is tried with, in patches."""


class _Patches(nn.Module):
    """Prepared patches float32 [B, C, *patch] → logits float32 [B, K, *patch]."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.network = copy.deepcopy(segmenter.network)
        for part in self.network.modules():
            if hasattr(part, "super_head"):  # what only training asks for
                part.super_head = None

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(image)[0].float()}


def to_onnx(module: Segmenter, data: SegmentationData, folder: Path) -> Exported:
    """Write model.onnx, model.json and model.py; the module itself says how they must answer."""
    plan, options = module.plan, module.training_options
    patch = torch.randn(2, len(plan.intensities), *plan.patch)
    write_onnx(_Patches(module).eval(), {"image": patch}, {"image": {0: "batch"}}, folder)
    shutil.copyfile(Path(__file__).with_name("exported_model.py"), folder / "model.py")
    about = {
        "plan": plan.to_json(),
        "temperature": float(module.temperature),
        "threshold": float(module.threshold) if len(plan.classes) == 2 else None,
        "overlap": options.overlap,
        "mirror": options.mirror if options.tta else [],
        "purpose": PURPOSE,
    }
    write_json(folder / "model.json", about)
    split = "test" if data.parts["test"] else "val"
    truths: list[np.ndarray] = []
    answers: list[np.ndarray] = []

    def cases() -> Iterator[Example]:
        for number, size in enumerate(_SIZES):
            yield _example(module, f"noise-{number}", _noise(module, size, number))
        for number, case in enumerate(data.cases(split)):
            truths.append(np.asarray(case.mask))
            answers.append(module.answer(case).mask)
            yield _example(module, f"evaluated-{number:06d}", case, evaluation=True)

    def metric(outputs: Iterator[Any]) -> dict[str, float]:
        """Dice of whole masks, which are not compared by voxel: where two logits tie, either is
        right. The module's are those of `answers`."""
        found = []
        for truth, answer, out in zip(truths, answers, outputs, strict=True):
            chosen = out["mask"][0] if "mask" in out else answer
            masks = [(chosen == k, truth == k) for k in range(1, len(plan.classes))]
            sizes = [(int((p & t).sum()), int(p.sum() + t.sum())) for p, t in masks]
            found += [2 * both / total for both, total in sizes if total]
        return {"dice": float(np.mean(found)) if found else 0.0}

    return Exported(cases(), metric, TOLERANCE)


def _noise(module: Segmenter, size: float, seed: int) -> Case:
    """A scan of noise, oblique and left-handed."""
    plan = module.plan
    shape = tuple(max(4, round(side * size) + 1) for side in plan.patch)
    random = np.random.default_rng(seed)
    image = random.normal(100, 30, (len(plan.intensities), *shape)).astype(np.float32)
    affine = np.eye(4)
    axes = np.diag([*plan.spacing, 1.0][:3])
    if plan.axes == 3:
        turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
        axes = turn @ axes @ np.diag([-1.0, 1.0, 1.0])
    affine[:3, :3] = axes
    return Case(f"noise-{seed}", image, affine)


@torch.no_grad()
def _example(module: Segmenter, name: str, case: Case, *, evaluation: bool = False) -> Example:
    options = module.training_options
    logits = inference.logits(
        module.network,
        prepare(case, module.plan).image,
        module.plan.patch,
        options.overlap,
        len(module.plan.classes),
        options.mirror if options.tta else (),
    )[None]
    probabilities = (logits / module.temperature.cpu()).softmax(1)
    return Example(
        name,
        {"image": case.image[None], "affine": case.affine[None]},
        {"logits": logits.numpy(), "probabilities": probabilities.numpy()},
        evaluation=evaluation,
    )
