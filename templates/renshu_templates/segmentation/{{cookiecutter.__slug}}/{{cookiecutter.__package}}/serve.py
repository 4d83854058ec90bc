{% from "quote" import python %}
"""The trained segmenter as an HTTP service.

`MODEL=runs/<run>/model python -m uvicorn {{ cookiecutter.__package }}.serve:app`, then
`curl --data-binary @scan.nii.gz http://127.0.0.1:8000/predict --output mask.nii.gz`. It answers on
this machine alone unless `--host` says more.
"""

import asyncio
import os
import tempfile
from functools import cache
from pathlib import Path

import yaml
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from renshu.errors import DataError
from renshu_tasks.segmentation.options import DataOptions, SegmentationOptions
from renshu_tasks.segmentation.predict import predict as predict_files

from {{ cookiecutter.__package }}.model import Segmentation

LARGEST = 512 * 2**20
"""Bytes of a scan that is read."""
AT_A_TIME = asyncio.Semaphore(2)
"""Requests that hold a scan in memory; others wait."""

app = FastAPI(
    title="{{ cookiecutter.name }}",
    description={{ python(cookiecutter.description) }},
)


@cache
def model() -> Segmentation:
    """The model in the folder that MODEL names."""
    return Segmentation.load_from_checkpoint(os.environ["MODEL"]).eval()


@cache
def label_map() -> dict[str, int] | None:
    """Stored value → class number in the masks that the run learned from."""
    run = Path(os.environ["MODEL"]).parent
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["data"]["label_map"]


@app.get("/health")
def health() -> dict[str, list[str]]:
    """Answers once the model is there."""
    return {"classes": list(model().plan.classes)}


@app.post("/predict")
async def predict(request: Request) -> Response:
    """The bytes of one scan (.nii.gz) → the bytes of its mask, in the space of the scan."""
    async with AT_A_TIME:
        scan = bytearray()
        async for chunk in request.stream():
            scan += chunk
            if len(scan) > LARGEST:
                raise HTTPException(413, f"a scan may have {LARGEST} bytes")
        try:
            mask = await run_in_threadpool(segment, bytes(scan))
        except DataError as error:
            raise HTTPException(422, error.what) from error
    return Response(mask, media_type="application/gzip")


def segment(scan: bytes) -> bytes:
    """The bytes of one scan → those of its mask, as `renshu predict` writes it.

    Both go through files that are removed again. DataError for what is no scan of one channel.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "scan.nii.gz")
        file.write_bytes(scan)
        data = DataOptions(label_map=label_map(), masks_dir=f"{folder}/masks")
        (row,) = predict_files(model(), [file], SegmentationOptions(data=data))
        return Path(row["mask"]).read_bytes()
