{% from "quote" import python %}
"""The trained detector as an HTTP service.

`MODEL=runs/<run>/model python -m uvicorn {{ cookiecutter.__package }}.serve:app`. It answers on this
machine alone unless `--host` says more.
"""

import os
from functools import cache
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field, FiniteFloat
from renshu_tasks.anomaly.online import Online

from {{ cookiecutter.__package }}.model import Detector

app = FastAPI(
    title="{{ cookiecutter.name }}",
    description={{ python(cookiecutter.description) }},
)


class Question(BaseModel):
    """Points in the order of time, a number for each channel."""

    points: Annotated[list[list[FiniteFloat]], Field(min_length=1, max_length=100_000)]


class Verdict(BaseModel):
    """What is decided about a point; the first ones, with too little before them, score 0."""

    score: float
    p_value: float
    threshold: float
    alarm: bool


@cache
def model() -> Detector:
    """The model in the folder that MODEL names."""
    return Detector.load_from_checkpoint(os.environ["MODEL"]).eval()


@app.get("/health")
def health() -> dict[str, list[str]]:
    """Answers once the model is there."""
    return {"channels": list(model().hparams.channels)}


@app.post("/predict")
def predict(question: Question) -> list[Verdict]:
    """A verdict for each point of a stretch; nothing is kept from one request to the next."""
    detector = model()
    channels = len(detector.hparams.channels)
    if any(len(point) != channels for point in question.points):
        raise HTTPException(422, f"a point has {channels} numbers")
    verdicts = Online(detector).extend(np.array(question.points))
    return [Verdict(**verdict._asdict()) for verdict in verdicts]
