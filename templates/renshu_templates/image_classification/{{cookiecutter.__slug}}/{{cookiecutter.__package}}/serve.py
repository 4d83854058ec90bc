{% from "quote" import python %}
"""The trained classifier as an HTTP service.

`MODEL=runs/<run>/model python -m uvicorn {{ cookiecutter.__package }}.serve:app`, then
`curl --data-binary @picture.jpg http://127.0.0.1:8000/predict`. It answers on this machine alone
unless `--host` says more.
"""

import os
from functools import cache

import torch
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from renshu.errors import DataError
from renshu_tasks.image_classification.readers import read_picture

from {{ cookiecutter.__package }}.model import Classifier

LARGEST = 20 * 2**20
"""Bytes of a picture that is read."""

app = FastAPI(
    title="{{ cookiecutter.name }}",
    description={{ python(cookiecutter.description) }},
)


@cache
def model() -> Classifier:
    """The model in the folder that MODEL names."""
    return Classifier.load_from_checkpoint(os.environ["MODEL"]).eval()


@app.get("/health")
def health() -> dict[str, list[str]]:
    """Answers once the model is there."""
    return {"classes": model().classes}


@app.post("/predict")
async def predict(request: Request) -> dict[str, str | dict[str, float]]:
    """The bytes of one picture → its class, and the calibrated probability of each."""
    picture = bytearray()
    async for chunk in request.stream():
        picture += chunk
        if len(picture) > LARGEST:
            raise HTTPException(413, f"a picture may have {LARGEST} bytes")
    try:
        return await run_in_threadpool(classify, bytes(picture))
    except DataError as error:
        raise HTTPException(422, error.what) from error


@torch.inference_mode()
def classify(picture: bytes) -> dict[str, str | dict[str, float]]:
    """The bytes of one picture → what `predict` answers."""
    classifier = model()
    channels, size = classifier.hparams.channels, tuple(classifier.hparams.image_size)
    pixels = read_picture(picture, channels=channels, size=size, max_pixels=40_000_000)
    found = classifier.probabilities(classifier.normalise(pixels[None].to(classifier.device)))
    decision = classifier.decide(found)[0]
    names = classifier.classes
    chosen = [names[k] for k in decision.nonzero()[:, 0]] if decision.ndim else [names[decision]]
    return {
        "class": "|".join(chosen),
        "probabilities": dict(zip(names, found[0].tolist(), strict=True)),
    }
