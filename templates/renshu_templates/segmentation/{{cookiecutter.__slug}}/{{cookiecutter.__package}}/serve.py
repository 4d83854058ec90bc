{% from "quote" import python %}
"""The trained segmenter as an HTTP service.

`MODEL=runs/<run>/model python -m uvicorn {{ cookiecutter.__package }}.serve:app`, then
`curl --data-binary @scan.nii.gz http://127.0.0.1:8000/predict --output mask.nii.gz`. It answers on
this machine alone unless `--host` says more.
"""

import os
import tempfile
from functools import cache
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from renshu.errors import DataError
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.records import Record
from renshu_tasks.segmentation.writing import write_mask

from {{ cookiecutter.__package }}.model import Segmentation

LARGEST = 512 * 2**20
"""Bytes of a scan that is read."""

app = FastAPI(
    title="{{ cookiecutter.name }}",
    description={{ python(cookiecutter.description) }},
)


@cache
def model() -> Segmentation:
    """The model in the folder that MODEL names."""
    return Segmentation.load_from_checkpoint(os.environ["MODEL"]).eval()


@app.get("/health")
def health() -> dict[str, list[str]]:
    """Answers once the model is there."""
    return {"classes": list(model().plan.classes)}


@app.post("/predict")
async def predict(request: Request) -> Response:
    """The bytes of one scan (.nii.gz) → the bytes of its mask, in the space of the scan."""
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
    """The bytes of one scan → those of its mask; both go through files that are removed again."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "scan.nii.gz")
        file.write_bytes(scan)
        case = load_case(Record("scan", (file,)), DataOptions(max_voxels=500_000_000))
        wanted, axes = len(model().plan.intensities), model().plan.axes
        if (len(case.image), len(case.shape)) != (wanted, axes):
            raise DataError(f"a scan has {wanted} channels and {axes} axes, as in training")
        answer = model().answer(case)
        return write_mask(Path(folder, "mask"), answer.mask, case).read_bytes()
