"""What no file of the framework, the tasks or the templates may do, found by reading the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import renshu

MODULES = {"pickle", "cPickle", "_pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "builtins.eval": "runs text as code",
    "builtins.exec": "runs text as code",
    "os.system": "hands text to a shell",
    "os.popen": "hands text to a shell",
    "subprocess.getoutput": "hands text to a shell",
    "subprocess.getstatusoutput": "hands text to a shell",
    "torch.load": "opens pickles",
    "torch.save": "writes pickles",
    "torch.package.PackageImporter": "opens pickles",
    "pandas.read_pickle": "opens pickles",
    "yaml.load": "builds objects",
    "yaml.load_all": "builds objects",
    "yaml.unsafe_load": "builds objects",
    "yaml.full_load": "builds objects",
    "logging.config.fileConfig": "evaluates a file",
    "tempfile.mktemp": "is a race",
}
METHODS = {"extractall": "unpacks without looking at the names"}
ALLOWED: set[tuple[str, str]] = {
    # weights_only=True: tensors and plain values, no code. It reads what Lightning has written.
    ("import_lightning.py", "torch.load opens pickles"),
    # The same for the weights of a MONAI bundle, and the name of the error that it gives.
    ("bundle.py", "torch.load opens pickles"),
    ("bundle.py", "imports pickle"),
    # Archives that this package brings along, not one that a user gives.
    ("versions.py", "extractall unpacks without looking at the names"),
}
"""(file, fault) that may stand, each with its reason beside it."""


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and fault of everything unsafe in a module."""
    names = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in _modules(node):
                if module.split(".")[0] in MODULES:
                    yield node.lineno, f"imports {module}"
                if module in CALLS:
                    yield node.lineno, f"{module} {CALLS[module]}"
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, fault) for fault in _in_call(node, names))
        elif isinstance(node, ast.Assign) and _lifts_the_limit(node):
            yield node.lineno, "MAX_IMAGE_PIXELS = None takes away the limit"


def _lifts_the_limit(node: ast.Assign) -> bool:
    names = [getattr(target, "attr", "") for target in node.targets]
    none = isinstance(node.value, ast.Constant) and node.value.value is None
    return none and "MAX_IMAGE_PIXELS" in names


def _imported(tree: ast.AST) -> dict[str, str]:
    """Local names and what they stand for: `import numpy as np` → np: numpy."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]


def _in_call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    name = _dotted(node.func, names)
    if name in CALLS:
        yield f"{name} {CALLS[name]}"
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield f"{node.func.attr} {METHODS[node.func.attr]}"
    for keyword in node.keywords:
        on = not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
        if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and on:
            yield f"{keyword.arg}=… in {name}"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as numpy.load, or "" for what is no dotted name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return ""


def sources() -> list[Path]:
    """Every Python file of the packages, wherever they are installed.

    Files with placeholders are no Python yet: the projects made of them are linted.
    """
    roots = [Path(renshu.__file__).parent]
    for name in ("renshu_tasks", "renshu_templates"):
        try:
            package = __import__(name)
        except ImportError:
            continue
        roots.append(Path(package.__file__).parent)
    files = [file for root in roots for file in sorted(root.rglob("*.py"))]
    return [file for file in files if "cookiecutter." not in file.read_text("utf-8")]


# pains/security.md rows 2, 14, 20, 27 and 30
def test_no_file_does_what_is_unsafe() -> None:
    files = sources()
    assert len(files) > 30, "the packages were not found"
    found = [
        f"{file}:{line}: {fault}"
        for file in files
        for line, fault in faults(ast.parse(file.read_bytes()))
        if (file.name, fault) not in ALLOWED
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.externals",
        "def f():\n    import dill as d",
        "torch.load('x')",
        "import torch as t\nt.load('x', weights_only=True)",
        "from torch import load\nload('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "np.load('x', allow_pickle=flag)",
        "eval('1')",
        "exec('1')",
        "import builtins\nbuiltins.eval('1')",
        "os.system('ls')",
        "from os import system",
        "from os import system as s\ns('ls')",
        "subprocess.run('ls', shell=True)",
        "zipfile.ZipFile('x').extractall('y')",
        "PIL.Image.MAX_IMAGE_PIXELS = None",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_each_unsafe_thing_is_seen(code: str) -> None:
    assert list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "np.load('x', allow_pickle=False)",
        "subprocess.run(['ls'], shell=False)",
        "yaml.safe_load(text)",
        "json.load(file)",
        "safetensors.torch.load_file('x')",
        "PIL.Image.MAX_IMAGE_PIXELS = 10_000_000",
    ],
)
def test_what_is_safe_is_let_through(code: str) -> None:
    assert not list(faults(ast.parse(code)))
