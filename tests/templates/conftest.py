"""The command line, and each template in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("cookiecutter", reason="renshu[templates] is not installed")

from renshu.cli.main import main
from renshu_templates.template import Template

from .helpers import NAMES, find


@pytest.fixture(params=NAMES)
def template(request: pytest.FixtureRequest) -> Template:
    """Each installed template in turn."""
    return find(request.param)


@pytest.fixture
def blank() -> Template:
    """The smallest template."""
    return find("blank")


@pytest.fixture
def renshu(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`renshu …` in the test's empty folder: exit code, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return run
