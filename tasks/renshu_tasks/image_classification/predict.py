"""Classify files: one row each, in order, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.errors import DataError
from renshu_tasks.image_classification.evaluation import names, probability_columns
from renshu_tasks.image_classification.options import ImageClassificationOptions
from renshu_tasks.image_classification.readers import read_picture

if TYPE_CHECKING:
    from renshu_tasks.image_classification.module import ImageClassifier

BATCH = 64


@torch.no_grad()
def predict(
    module: ImageClassifier,
    files: Iterable[str | Path],
    options: ImageClassificationOptions,
) -> Iterator[dict[str, Any]]:
    """One row a file: file, predicted, confidence, error, and `p_<class>` for each class.

    A file that cannot be read raises DataError; with `data.on_bad_image="skip"` its row says why
    and the others stay empty.
    """
    module.eval()
    remaining = iter(files)
    while chunk := [str(file) for file in islice(remaining, options.data.batch_size or BATCH)]:
        pictures = [_read(module, file, options) for file in chunk]
        good = [picture for picture in pictures if isinstance(picture, Tensor)]
        rows = iter(_rows(module, torch.stack(good)) if good else ())
        for file, picture in zip(chunk, pictures, strict=True):
            if isinstance(picture, Tensor):
                yield {"file": file, **next(rows)}
            else:
                yield {"file": file, **_empty(module, picture)}


def _read(module: ImageClassifier, file: str, options: ImageClassificationOptions) -> Tensor | str:
    """uint8 [C, H, W] as the module was trained on, or what is wrong with the file."""
    try:
        return read_picture(
            Path(file),
            channels=module.hparams.channels,
            size=tuple(module.hparams.image_size),
            max_pixels=options.data.max_pixels,
        )
    except DataError as error:
        if options.data.on_bad_image == "fail":
            raise
        return error.what


def _rows(module: ImageClassifier, images: Tensor) -> Iterator[dict[str, Any]]:
    """uint8 images [B, C, H, W] → their rows."""
    probabilities = module.probabilities(module.normalise(images.to(module.device)))
    predicted, probabilities = module.decide(probabilities).cpu(), probabilities.cpu()
    for decision, row in zip(predicted, probabilities, strict=True):
        sure = torch.where(decision, row, 1 - row).min() if decision.ndim else row[decision]
        yield {
            "predicted": names(module, decision),
            "confidence": round(float(sure), 6),
            "error": "",
            **probability_columns(module, row),
        }


def _empty(module: ImageClassifier, error: str) -> dict[str, Any]:
    empty = {f"p_{name}": "" for name in module.classes}
    return {"predicted": "", "confidence": "", "error": error, **empty}
