"""What is in a generated project: exactly what was chosen, as text that every reader takes."""

from __future__ import annotations

import ast
import json
import re
import shutil
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader

import renshu
from renshu.errors import ConfigError
from renshu_templates.render import Files
from renshu_templates.template import Template

from .helpers import ALL, NAMES, find, tree

CORE = {
    *(".gitignore", ".renshu.yaml", "README.md", "config.yaml", "pyproject.toml"),
    *("notebooks/explore.ipynb", "rivers/__init__.py", "rivers/config.py", "rivers/data.py"),
    *("requirements.lock", "rivers/model.py", "rivers/train.py", "tests/test_project.py"),
}
CHOSEN = {
    "license": {"LICENSE"},
    "docker": {"Dockerfile", ".dockerignore"},
    "ci": {".github/workflows/ci.yml"},
    "pre_commit": {".pre-commit-config.yaml"},
    "serving": {"rivers/serve.py", "tests/test_serve.py"},
    "slurm": {"deploy/slurm.sh"},
    "kubernetes": {"deploy/kubernetes.yaml"},
}
ON = {"license": "mit", "docker": "cpu", "ci": "github", "pre_commit": "yes"} | ALL
OFF = dict.fromkeys(("license", "docker", "ci", "serving"), "none")
OFF |= dict.fromkeys(("pre_commit", "slurm", "kubernetes"), "no")


def files_of(template: Template, **answers: object) -> Files:
    """The files for some answers, the rest as usual."""
    return template.files(template.complete({"name": "rivers", **answers}))


def test_the_files_are_those_that_were_chosen_and_no_others(template: Template) -> None:
    """Both ways: each option brings its own files and leaves all others."""
    core = CORE | set(template.about["test"].get("files", ()))
    assert files_of(template, **OFF).keys() == core
    for key, files in CHOSEN.items():
        more = {"docker": "cpu"} if key == "kubernetes" else {}
        brought = files | (CHOSEN["docker"] if more else set())
        assert files_of(template, **OFF | more | {key: ON[key]}).keys() == core | brought, key
    assert files_of(template, **ON).keys() == core.union(*CHOSEN.values())


def read_all(files: Files) -> dict[str, Any]:
    """Every file through the reader of its kind."""
    readers = {
        ".py": ast.parse,
        ".toml": tomllib.loads,
        ".ipynb": json.loads,
        ".yaml": lambda text: list(yaml.safe_load_all(text)),
        ".yml": yaml.safe_load,
    }
    return {
        path: readers.get(Path(path).suffix, str)(content.decode("utf-8"))
        for path, content in files.items()
    }


@pytest.mark.parametrize("docker", ["cpu", "cuda"])
@pytest.mark.parametrize("logger", ["csv", "mlflow"])
def test_every_file_is_read_by_its_reader_and_has_nothing_left_over(
    template: Template, docker: str, logger: str
) -> None:
    # pains/templates.md rows 22 and 26
    files = files_of(template, **ON | {"docker": docker, "logger": logger})
    read_all(files)
    for path, content in files.items():
        text = content.decode("utf-8")
        assert "\r" not in text, path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert not re.search(r"(?<!\$)\{\{|\{%|\{#|%\}", text), path
        assert not re.search(r"TODO|FIXME|lorem|example\.com|cookiecutter", text, re.I), path
        assert not re.search(r"[ \t]+$", text, re.M), path
        assert "\n\n\n\n" not in text, path


PRINTABLE = st.characters().filter(str.isprintable)


QUOTED = """{% from "quote" import quoted, python %}{{ quoted(text) }}
{{ python(text) }}
"""


@given(text=st.text(PRINTABLE))
def test_any_printable_text_comes_back_from_every_format(text: str) -> None:
    # pains/templates.md row 21
    loader = FileSystemLoader(find("blank").folder / "templates")
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True)
    quoted, python = environment.from_string(QUOTED).render(text=text).split("\n")
    assert tomllib.loads(f"a = {quoted}") == {"a": text}
    assert yaml.safe_load(f"a: {quoted}") == {"a": text}
    assert json.loads(quoted) == ast.literal_eval(quoted) == ast.literal_eval(python) == text


TRICKY = [
    '"',
    "\\",
    "'''",
    '"""',
    "{{ 7 * 7 }}",
    "{% raw %}",
    "😀",
    "#",
    "a: b",
    "- x",
    "\\u0041",
    "`",
]


@pytest.mark.parametrize("text", TRICKY)
def test_text_that_is_code_elsewhere_is_text_here(template: Template, text: str) -> None:
    files = read_all(files_of(template, **ALL, description=text, author=text))
    project = files["pyproject.toml"]["project"]
    assert (project["description"], project["authors"]) == (text, [{"name": text}])
    assert files[".renshu.yaml"][0]["description"] == text
    assert files["README.md"].split("\n")[2] == text
    serve = files["rivers/serve.py"]
    (described,) = [
        keyword.value.value
        for node in ast.walk(serve)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "description"
    ]
    assert described == text
    notebook = "".join(files["notebooks/explore.ipynb"]["cells"][0]["source"])
    assert text in notebook


def copied(template: Template, into: Path) -> Template:
    """A template that may be altered."""
    return Template(Path(shutil.copytree(template.folder, into / "copied")))


def test_a_broken_template_is_named_with_file_and_line(blank: Template, tmp_path: Path) -> None:
    broken = copied(blank, tmp_path)
    readme = broken.folder / "{{cookiecutter.__slug}}" / "README.md"
    faults = {"one\ntwo {% if %}\n": 2, "one\ntwo\n{{ cookiecutter.nmae }}\n": 3}
    faults |= {'one\n{% include "nowhere.md" %}\n': 2, "one\n{{ 1|nofilter }}\n": 2}
    faults |= {'{{ 1 + "a" }}\n': 1, 'one\n{{ "a"|truncate("x", 3) }}\n': 2}
    for text, line in faults.items():
        readme.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            files_of(broken)
        assert caught.value.where == f"README.md, line {line}"


def test_what_python_compiled_in_a_template_is_no_part_of_a_project(
    blank: Template, tmp_path: Path
) -> None:
    altered = copied(blank, tmp_path)
    package = altered.folder / "{{cookiecutter.__slug}}" / "{{cookiecutter.__package}}"
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "data.cpython-311.pyc").write_bytes(b"\0compiled")
    assert files_of(altered) == files_of(blank)


def test_a_template_is_drawn_quickly(template: Template) -> None:
    """The figure is measured in benchmarks/templates.py; this is against a slip of its size."""
    files_of(template)
    start = time.perf_counter()
    files_of(template, **ALL)
    assert time.perf_counter() - start < 2


def test_the_version_of_all_templates_is_that_of_renshu(template: Template) -> None:
    assert template.version == renshu.__version__


def test_every_link_between_templates_leads_to_a_shared_file(template: Template) -> None:
    for path in template.folder.rglob("*"):
        assert path.exists(), path
        if path.is_symlink():
            assert path.resolve().is_relative_to(template.folder.parent / "_shared"), path


@pytest.mark.parametrize("name", NAMES)
def test_plain_cookiecutter_gives_the_full_tree(name: str, tmp_path: Path) -> None:
    # The program itself, as another user of the template would call it.
    from cookiecutter.main import cookiecutter

    template = find(name)
    replay = {"cookiecutters_dir": str(tmp_path / "c"), "replay_dir": str(tmp_path / "r")}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(replay), encoding="utf-8")
    cookiecutter(
        str(template.folder),
        no_input=True,
        extra_context={"name": "rivers"},
        output_dir=str(tmp_path),
        config_file=str(config),
    )
    made = {path: c for path, c in tree(tmp_path / "rivers").items() if "__pycache__" not in path}
    assert made == files_of(template, **ON | {"license": "apache-2.0"})


def test_the_lock_of_a_project_has_sums_and_names_no_index(template: Template) -> None:
    # pains/templates.md row 29
    files = files_of(template, **ON)
    text = files["requirements.lock"].decode("utf-8")
    packages = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)==[^ ]+.*\\\n((?: +--hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M
    )
    assert len(packages) == len(re.findall(r"^[a-z0-9]", text, re.M))
    names = {name for name, _ in packages}
    assert {"torch", "numpy", "safetensors", "jsonargparse", "fastapi"} <= names
    assert "renshu" not in names
    assert not re.search(r"https?://|^ *-(-index|-extra|-find|i )", text, re.M)


@pytest.mark.parametrize("name", ["anomaly", "segmentation", "text"])
def test_the_image_brings_the_data_to_start_with_and_says_where_others_go(name: str) -> None:
    template = find(name)
    files = template.files(template.complete({"name": "rivers", "docker": "cpu"} | ALL))
    assert b'"renshu[demo]' in files["README.md"]
    install = next(r for r in files["Dockerfile"].decode().splitlines() if "-dir . " in r)
    assert '"renshu[demo]' in install
    assert b":/app/data:ro" in files["Dockerfile"]
    assert b"/app/data" in files["deploy/kubernetes.yaml"]


def test_the_readme_says_which_commands_know_no_other_network(template: Template) -> None:
    readme = template.files(template.complete({"name": "rivers"}))["README.md"].decode()
    row = next(line for line in readme.splitlines() if line.startswith("| `rivers/model.py`"))
    assert ("know the task's own only" in row) == ("task" in template.about)
