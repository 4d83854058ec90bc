"""A configuration is data: none can import, call or exhaust anything (pains/security.md)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from renshu.cli import yaml_file
from renshu.cli.main import main

pytestmark = pytest.mark.usefixtures("toy")

Program = Callable[..., subprocess.CompletedProcess[str]]

TARGETS = [
    "os.system",
    "posix.system",
    "logging.os.system",
    "subprocess.Popen",
    "builtins.eval",
    "functools.partial",
    "jsonargparse.set_parsing_settings",
    "logging.FileHandler",
    "spied_module.Thing",
    "renshu_evil.Thing",
]

SPY = """
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'spied_module', 'renshu_evil'}:
            open('imported', 'w').close()
sys.meta_path.insert(0, Spy())
import os, subprocess, builtins
def refuse(*a, **k): open('called', 'w').close()
os.system = subprocess.Popen = refuse
"""


# pains/security.md rows 6 and 7
@pytest.mark.parametrize("place", ["", "model", "data", "training", "trainer", "model.name"])
def test_a_class_path_in_a_file_is_an_unknown_key_or_wrong_value(
    place: str, renshu: Program, tmp_path: Path
):
    for target in TARGETS[:3] + TARGETS[-2:] if place == "model" else TARGETS[-2:-1]:
        value: object = {"class_path": target, "init_args": {"command": "touch called"}}
        for part in reversed(place.split(".") if place else []):
            value = {part: value}
        Path("c.yaml").write_text(yaml.safe_dump(value))
        done = renshu("train", "toy", "--config", "c.yaml", prelude=SPY)
        assert done.returncode == 2, done.stderr
        assert "class_path" in done.stderr or "expected" in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


# pains/security.md rows 6 and 7
@pytest.mark.parametrize(
    "option",
    [
        "--model.class_path=spied_module.Thing",
        '--model={"class_path": "spied_module.Thing"}',
        '--model.width={"class_path": "spied_module.Thing"}',
        '--data.weights={"class_path": "spied_module.Thing"}',
        '--data.classes=[{"class_path": "spied_module.Thing"}]',
        "--data.hook=spied_module.Thing",
        '--trainer.callbacks={"class_path": "spied_module.Thing"}',
        "--trainer.callbacks=spied_module.Thing",
        '--trainer.logger={"class_path": "spied_module.Thing"}',
        "--trainer.max_epochs=!!python/name:spied_module.Thing",
        "--trainer.max_epochs=spied_module.Thing",
    ],
)
def test_a_class_path_on_the_command_line_imports_nothing(
    option: str, renshu: Program, tmp_path: Path
):
    done = renshu("train", "toy", option, "--print_config", prelude=SPY)
    names = [path.name for path in tmp_path.iterdir()]
    assert names == []
    if done.returncode != 2:
        # A plain text option takes any text; it stays text.
        assert done.returncode == 0
        assert "logger: '{" in done.stdout


# pains/security.md row 6: nothing is read from the environment.
def test_a_class_path_in_the_environment_imports_nothing(
    renshu: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    for name in ("RENSHU_TRAIN_TOY_MODEL", "RENSHU_TRAIN_TOY_MODEL__WIDTH", "MODEL"):
        monkeypatch.setenv(name, '{"class_path": "spied_module.Thing"}')
    done = renshu("train", "toy", "--print_config", prelude=SPY)
    assert (done.returncode, list(tmp_path.iterdir())) == (0, [])
    assert "spied_module" not in done.stdout


# pains/security.md row 30
@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch called']",
        "model: {width: !!python/object/new:os.system ['touch called']}",
        "model: !!python/name:os.system",
        "model: !!python/module:spied_module",
        "data: {path: !!binary aGVsbG8=}",
        "data: {classes: !!set {a, b}}",
        "data: {path: !own thing}",
    ],
)
def test_a_tag_that_builds_an_object_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Path("c.yaml").write_text(text)
    before = set(sys.modules)
    assert main(["train", "toy", "--config", "c.yaml"]) == 2
    assert "c.yaml, line 1" in capsys.readouterr().err
    assert not {"spied_module"} & (set(sys.modules) - before)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


# pains/security.md row 30: 294 bytes that a safe loader takes without a word.
def test_bombs_are_refused_at_once(capsys: pytest.CaptureFixture[str]):
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    bombs = {
        "aliases": "\n".join(["l0: &l0 [x, x]", *levels]),
        "levels": "data: " + "[" * 30_000,
        "values": "data: {classes: [" + "a," * 30_000 + "]}",
        "large": "data: {path: '" + "x" * 300_000 + "'}",
        "null": "data: {path: \0}",
        "recursive": "data: &a {path: *a}",
        "merge": "data: &a {path: x}\nmodel: {<<: *a}",
    }
    for name, text in bombs.items():
        Path("c.yaml").write_text(text)
        start = time.perf_counter()
        assert main(["train", "toy", "--config", "c.yaml"]) == 2, name
        assert time.perf_counter() - start < 5
        assert "c.yaml" in capsys.readouterr().err
    Path("c.yaml").write_bytes(b"data: {path: \xff\xfe}")
    assert main(["train", "toy", "--config", "c.yaml"]) == 2
    assert "UTF-8" in capsys.readouterr().err
    bomb = "--data.classes=" + "[&a [x], " + "*a, " * 10 + "]"
    assert main(["train", "toy", bomb]) == 2


# pains/security.md row 23: no value is a template.
@pytest.mark.parametrize("text", ["{{7*7}}", "{% raw %}", "${PATH}", "$import os", "`id`", "%(a)s"])
def test_text_is_taken_literally(text: str, capsys: pytest.CaptureFixture[str]):
    Path("c.yaml").write_text(yaml.safe_dump({"data": {"path": text, "classes": [text]}}))
    assert main(["train", "toy", "--config", "c.yaml", "--print_config"]) == 0
    data = yaml_file.loads(capsys.readouterr().out)["data"]
    assert (data["path"], data["classes"]) == (text, [text])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda s: st.lists(s) | st.dictionaries(st.text(), s), max_leaves=8))
def test_what_is_written_is_read_back(value: object):
    assert yaml_file.loads(yaml_file.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("10:00:00:00", "10:00:00:00"),
        ("2024-01-01", "2024-01-01"),
        ("0123", "0123"),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("5.", 5.0),
        (".inf", float("inf")),
        ("-7", -7),
        ("true", True),
        ("null", None),
        ("", None),
        ("1e", "1e"),
        (".", "."),
        ("e5", "e5"),
    ],
)
def test_words_are_not_taken_for_other_types(text: str, value: object):
    read = yaml_file.loads(text)
    assert (type(read), read) == (type(value), value)
