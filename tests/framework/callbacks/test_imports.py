"""Names load when they are used, and nothing heavy before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import renshu.callbacks
import renshu.loggers
from renshu.errors import ConfigError


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_packages_loads_nothing_heavy() -> None:  # pains/trainer.md row 43
    code = """
import sys, renshu.callbacks, renshu.loggers
print([m for m in ("torch", "rich", "tensorboard", "yaml") if m in sys.modules])
"""
    assert run(code) == "[]"


def test_a_fit_without_a_terminal_loads_no_rich_and_no_tensorboard() -> None:
    code = """
import sys
from renshu.callbacks import EMA, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from renshu.callbacks import ModelSummary, ProgressBar
from renshu.loggers import make_loggers
make_loggers(True), ProgressBar(), ModelSummary(), ModelCheckpoint()
print([m for m in ("rich", "tensorboard") if m in sys.modules])
"""
    assert run(code) == "[]"


def test_every_public_name_loads() -> None:
    for package in (renshu.callbacks, renshu.loggers):
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match="Nothing"):
            _ = package.Nothing


def test_loggers_are_found_by_name() -> None:
    from renshu.loggers import CSVLogger, TensorBoardLogger, make_loggers

    own = CSVLogger()
    assert [type(logger) for logger in make_loggers(True)] == [CSVLogger]
    assert make_loggers(False) == []
    assert [type(x) for x in make_loggers(["csv", "tensorboard"])] == [CSVLogger, TensorBoardLogger]
    assert make_loggers(own) == [own]
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        make_loggers("tensorbord")
    with pytest.raises(ConfigError, match="there is no logger 3"):
        make_loggers([3])
