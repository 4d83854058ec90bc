"""The questions of a template and the rules for their answers. Knows no terminal."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renshu.errors import ConfigError, unknown

Answer = str | bool
Answers = dict[str, Answer]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 50
_LONGEST_TEXT = 200
_YES = {"yes": True, "true": True, "no": False, "false": False}
_WINDOWS = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
_BROUGHT = """
    absl accelerate alembic annotated_doc annotated_types anyio certifi click cloudpickle colorama
    cuda datasets dateutil dill docstring_parser fastapi filelock flask fsspec functorch git gitdb
    google grpc h11 hf_xet httpcore httpcore2 httpx httpx2 huggingface_hub idna importlib_resources
    iniconfig isympy jinja2 joblib jsonargparse lightning_utilities llvmlite markdown markdown_it
    markupsafe mdurl mlflow monai mpmath multiprocess narwhals networkx nibabel nilearn numba numpy
    nvidia opentelemetry packaging pandas peft pil pip platformdirs plotly pluggy psutil pyarrow
    pydantic pydantic_core pydicom pygments pytest regex requests rich safetensors scipy sentry_sdk
    seqeval setuptools shellingham six sklearn smmap sqlalchemy starlette stumpy sympy tensorboard
    threadpoolctl tokenizers torch torchgen torchmetrics torchvision tqdm transformers triton
    truststore typer typeshed_client typing_extensions typing_inspection tzdata urllib3 uvicorn
    wandb werkzeug xxhash yaml
"""
"""Modules of the requirements of all templates and of what those bring, in lower case."""
_IN_USE = {
    *_BROUGHT.split(),
    *("renshu", "renshu_tasks", "renshu_templates"),
    *("deploy", "notebooks", "runs", "tests"),  # folders of every project
}
"""Packages that a project imports, and its own folders: its package cannot have their names."""


@dataclass(frozen=True)
class Question:
    """One thing that a template asks.

    Attributes:
        key: name of the answer, and of the option on the command line.
        text: what is asked.
        default: the answer when there is none; its type is that of all answers.
        choices: the allowed answers; empty for free text, yes and no for bool.
    """

    key: str
    text: str
    default: Answer
    choices: tuple[str, ...] = ()

    def check(self, value: object, where: str) -> Answer:
        """The answer as it is used; raises ConfigError with the rule and a proposed repair."""
        if isinstance(self.default, bool):
            answer = value if isinstance(value, bool) else _YES.get(str(value).lower())
            if answer is None:
                raise ConfigError(
                    f"{value!r} is neither yes nor no", where=where, allowed="yes, no"
                )
            return answer
        if not isinstance(value, str):
            said = f"expected text, got {value!r}"
            raise ConfigError(said, where=where, allowed=", ".join(self.choices) or "text")
        if self.choices and value not in self.choices:
            raise unknown(f"answer for {self.key}", value, self.choices, where)
        return value if self.choices else _check_text(self.key, value, where)


def read_questions(file: Path, defaults: Mapping[str, Answer]) -> list[Question]:
    """The questions of a `cookiecutter.json`; `defaults` replaces what it would take."""
    content = json.loads(file.read_text(encoding="utf-8"))
    prompts = content.get("__prompts__", {})
    found = []
    for key, value in content.items():
        if not key.startswith("_"):
            choices = tuple(value) if isinstance(value, list) else ()
            default = defaults.get(key, value[0] if isinstance(value, list) else value)
            choices = ("yes", "no") if isinstance(default, bool) else choices
            found.append(Question(key, prompts.get(key, key), default, choices))
    return found


def check_needs(answers: Answers, needs: Mapping[str, Any]) -> None:
    """Raise ConfigError where an answer needs another: `{"kubernetes": {"docker": ["cpu"]}}`."""
    for key, others in needs.items():
        for other, allowed in others.items():
            if answers[key] not in (False, "none") and answers[other] not in allowed:
                raise ConfigError(
                    f"{key} needs {other}, which is {answers[other]!r}",
                    where=f"--{key}",
                    allowed=f"--{other} {' or '.join(allowed)}",
                    mend=f"--{other} {allowed[0]}, or leave {key} out",
                )


def package_of(name: str) -> str:
    """The import package of a project: `flower-photos` → `flower_photos`."""
    return name.replace("-", "_")


def check_name(name: str, where: str) -> str:
    """A name that a folder, a distribution and a package can have; else ConfigError."""
    fine = _NAME.fullmatch(name) and len(name) <= _LONGEST_NAME
    if fine and not _taken(name):
        return name
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
    why = "is the name of something else" if fine else "cannot name a project"
    raise ConfigError(
        f"{shown!r} {why}",
        where=where,
        allowed=f"a to z, 0 to 9 and single dashes between, a letter first, at most "
        f"{_LONGEST_NAME} characters; no Python keyword, no module that projects import",
        mend=f"call it {repair_name(name)!r}",
    )


def repair_name(name: str) -> str:
    """The nearest name that is allowed."""
    from slugify import slugify

    slug = slugify(name, max_length=_LONGEST_NAME - len("project-"), word_boundary=False)
    if not slug:
        return "my-project"
    if not slug[0].isalpha():
        return f"project-{slug}"
    return f"{slug}-project" if _taken(slug) else slug


def _taken(name: str) -> bool:
    package = package_of(name)
    words = {*keyword.kwlist, *keyword.softkwlist}
    return package in sys.stdlib_module_names | words | _IN_USE | _WINDOWS


def _check_text(key: str, text: str, where: str) -> str:
    if key == "name":
        return check_name(text, where)
    wrong = next((sign for sign in text if not sign.isprintable()), None)
    if wrong is None and len(text) <= _LONGEST_TEXT:
        return text
    what = f"{len(text)} characters" if wrong is None else f"the character {wrong!r}"
    repaired = "".join(sign if sign.isprintable() else " " for sign in text)[:_LONGEST_TEXT].strip()
    raise ConfigError(
        f"{key} has {what}",
        where=where,
        allowed=f"one line of printable text, at most {_LONGEST_TEXT} characters",
        mend=f"--{key} {repaired!r}",
    )
