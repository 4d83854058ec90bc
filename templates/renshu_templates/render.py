"""From answers to the files of a project, in memory. No hook is run and no process started."""

from __future__ import annotations

import json
import tempfile
import tomllib
import traceback
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from renshu.errors import ConfigError
from renshu_templates.answers import Answers, package_of

Files = dict[str, bytes]
"""Content by path below the project, with `/` on every system."""


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file of a template."""
    return tomllib.loads(file.read_text(encoding="utf-8"))


def render(folder: Path, answers: Answers) -> Files:
    """The files that the template in `folder` gives for complete answers.

    Raises ConfigError with file and line for a template that is broken.
    """
    try:
        from cookiecutter.exceptions import UndefinedVariableInTemplate
        from cookiecutter.generate import generate_files
        from jinja2 import TemplateError, TemplateSyntaxError
    except ModuleNotFoundError as error:
        mend = 'pip install "renshu[templates]"'
        raise ConfigError("cookiecutter is not installed", mend=mend) from error

    # Not beside the target: cookiecutter takes braces in the name of any folder above for its own.
    with tempfile.TemporaryDirectory(prefix="renshu-new-") as temporary:
        try:
            root = generate_files(folder, _context(folder, answers), temporary, accept_hooks=False)
        except TemplateSyntaxError as error:
            raise _broken(folder, error.name, error.lineno, error.message) from error
        except UndefinedVariableInTemplate as error:
            raise _fault(folder, error.error) from error
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _fault(folder, error) from error
        found = {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(Path(root).rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }
    conditions = read_toml(folder / "files.toml")["files"]
    return {path: text for path, text in found.items() if _wanted(path, conditions, answers)}


def _context(folder: Path, answers: Answers) -> dict[str, Any]:
    """What the template sees: the answers as they are, and the private values made from them.

    cookiecutter's own way renders every answer as a template; braces in a text would be code.
    """
    from cookiecutter.utils import create_env_with_context

    values: dict[str, Any] = dict(answers)
    environment = create_env_with_context({"cookiecutter": values})
    for key, value in json.loads((folder / "cookiecutter.json").read_text("utf-8")).items():
        if key.startswith("__") and isinstance(value, str):
            values[key] = environment.from_string(value).render(cookiecutter=values)
        elif key.startswith("_"):
            values[key] = value
    return {"cookiecutter": values}


def _wanted(path: str, conditions: Mapping[str, Any], answers: Answers) -> bool:
    """Whether a path, or a folder above it, was chosen."""
    for name, needs in conditions.items():
        place = PurePosixPath(name.replace("{package}", package_of(str(answers["name"]))))
        if PurePosixPath(path).is_relative_to(place):
            return all(answers[key] in allowed for key, allowed in needs.items())
    return True


def _fault(folder: Path, error: Exception) -> ConfigError:
    """Jinja puts the template's own lines into the traceback, under names that are relative."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(("/", "<"))]
    file, line = (own[-1].filename, own[-1].lineno) if own else (None, None)
    return _broken(folder, file, line, str(error))


def _broken(folder: Path, file: str | None, line: int | None, message: str | None) -> ConfigError:
    said = f"the template {folder.name} is broken: {message}"
    where = f"{file}, line {line}" if file else folder
    return ConfigError(said, where=where, mend="report it to its author")
