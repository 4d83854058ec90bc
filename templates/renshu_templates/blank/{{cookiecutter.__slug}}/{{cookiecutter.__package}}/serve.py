{% from "quote" import python %}
"""The trained classifier as an HTTP service.

`MODEL=runs/<run>/model python -m uvicorn {{ cookiecutter.__package }}.serve:app`. It answers on this
machine alone unless `--host` says more.
"""

import os
from functools import cache
from typing import Annotated

import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field, FiniteFloat

from {{ cookiecutter.__package }}.model import Classifier

app = FastAPI(
    title="{{ cookiecutter.name }}",
    description={{ python(cookiecutter.description) }},
)


class Question(BaseModel):
    """Rows as they are in the table, without the class."""

    rows: Annotated[list[list[FiniteFloat]], Field(min_length=1, max_length=10_000)]


@cache
def model() -> Classifier:
    """The model in the folder that MODEL names."""
    return Classifier.load_from_checkpoint(os.environ["MODEL"]).eval()


@app.get("/health")
def health() -> dict[str, list[str]]:
    """Answers once the model is there."""
    return {"classes": model().classes}


@app.post("/predict")
@torch.inference_mode()
def predict(question: Question) -> list[dict[str, float]]:
    """The probability of each class, for each row."""
    classifier = model()
    columns = len(classifier.mean)
    if any(len(row) != columns for row in question.rows):
        raise HTTPException(422, f"a row has {columns} numbers")
    rows = torch.tensor(question.rows, device=classifier.device)
    found = classifier(rows).softmax(1).tolist()
    return [dict(zip(classifier.classes, row, strict=True)) for row in found]
