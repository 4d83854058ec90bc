"""What a project may be called, and what is proposed for what it may not."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions

import pytest

from renshu.errors import ConfigError
from renshu_templates.answers import check_name, package_of, repair_name

from .helpers import NAMES, find

# pains/templates.md rows 3 and 20
REPAIRED = {
    "My Project": "my-project",
    "my_project": "my-project",
    "MyProject": "myproject",
    "größe": "grosse",
    "a.b": "a-b",
    "a--b": "a-b",
    "-rf": "rf",
    "--help": "help",
    "trailing-": "trailing",
    "../up": "up",
    "a/b": "a-b",
    "a\\b": "a-b",
    "/etc/passwd": "etc-passwd",
    "3d-scans": "project-3d-scans",
    "class": "class-project",
    "match": "match-project",
    "json": "json-project",
    "torch": "torch-project",
    "renshu": "renshu-project",
    "renshu-tasks": "renshu-tasks-project",
    "tests": "tests-project",
    "con": "con-project",
    "LPT1": "lpt1-project",
    "😀": "my-project",
    "": "my-project",
    "   ": "my-project",
    "it's": "it-s",
    'say "hi"': "say-hi",
    "{{ cookiecutter }}": "cookiecutter",
    "{% raw %}": "raw",
    "a\0b": "a-b",
    "line\nbreak": "line-break",
}


@pytest.mark.parametrize(("name", "repaired"), REPAIRED.items())
def test_a_name_that_cannot_be_is_refused_with_rule_and_repair(name: str, repaired: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_name(name, "--name")
    assert "a letter first" in str(caught.value.allowed)
    assert caught.value.mend == f"call it {repaired!r}"
    assert check_name(repaired, "--name") == repaired


def test_a_very_long_name_is_refused_and_shown_in_part() -> None:
    with pytest.raises(ConfigError) as caught:
        check_name("x" * 300, "--name")
    assert len(str(caught.value)) < 400
    assert check_name(repair_name("x" * 300), "--name")


@pytest.mark.parametrize("name", ["a", "rivers", "river-levels-2", "x" * 50])
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert check_name(name, "--name") == name


def test_no_package_hides_a_word_or_a_module_of_python() -> None:
    for name in [*keyword.kwlist, *sys.stdlib_module_names]:
        dashed = name.lower().replace("_", "-").strip("-")
        if package_of(dashed) == name:
            with pytest.raises(ConfigError):
                check_name(dashed, "--name")


def test_no_package_hides_a_module_that_requirements_bring() -> None:
    """All that is locked for the templates, as far as it is installed here."""
    locked = {
        _plain(name)
        for template in NAMES
        for lock in find(template).folder.glob("*/requirements.lock")
        for name in re.findall(r"^([\w.-]+)==", lock.read_text("utf-8"), re.MULTILINE)
    }
    found = packages_distributions().items()
    modules = {name.lower() for name, owners in found if locked & set(map(_plain, owners))}
    assert {"torch", "pydantic", "starlette", "sympy"} <= modules
    for name in modules:
        dashed = name.replace("_", "-")
        if name.isidentifier() and not dashed.startswith("-"):
            with pytest.raises(ConfigError, match="something else"):
                check_name(dashed, "--name")


def _plain(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
