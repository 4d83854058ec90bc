{% from "quote" import python %}
"""The fine-tuned model as an HTTP service.

`MODEL=runs/<run>/model python -m uvicorn {{ cookiecutter.__package }}.serve:app`. It answers on this
machine alone unless `--host` says more.
"""

import os
from functools import cache
from typing import Annotated, Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel, Field, StringConstraints
from renshu_tasks.text.predict import answers

from {{ cookiecutter.__package }}.model import Classifier

Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000, strip_whitespace=True)]

app = FastAPI(
    title="{{ cookiecutter.name }}",
    description={{ python(cookiecutter.description) }},
)


class Question(BaseModel):
    """Texts, each to be labelled by itself."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=1000)]


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
def predict(question: Question) -> list[dict[str, Any]]:
    """The label of each text, how sure it is, and the probability of each label."""
    return answers(model(), [{"text": text, "pair": ""} for text in question.texts])
