"""The gate of `renshu export`: only what does the same in a fresh process is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from renshu.cli.export_gate import difference, export
from renshu.cli.main import main
from renshu.errors import RunError
from renshu.task import Case, Exported

# A format of its own: one matrix in a safetensors file, multiplied by numpy.
MODEL = """
import numpy as np
from safetensors.numpy import load_file

def load(folder):
    weight = load_file(folder / "weight.safetensors")["weight"]
    return lambda inputs, texts: {"logits": inputs["x"] @ weight, "letters": count(texts)}

def count(texts):
    return np.array([len(text) for text in texts])
"""


def writer(
    model: str = MODEL,
    change: Callable[[np.ndarray], np.ndarray] = lambda weight: weight,
    tolerance: float = 1e-5,
) -> Callable[..., Exported]:
    """An exporter of a linear layer that writes its weight changed by `change`."""

    def write(module: torch.nn.Linear, data: np.ndarray, folder: Path) -> Exported:
        weight = module.weight.detach().numpy().T
        (folder / "model.py").write_text(model)
        save_file({"weight": np.ascontiguousarray(change(weight))}, folder / "weight.safetensors")

        def case(name: str, x: np.ndarray, **more: Any) -> Case:
            texts = [name] * len(x)
            outputs = {"logits": x @ weight, "letters": np.array([len(name)] * len(x))}
            return Case(name, {"x": x}, outputs, texts, **more)

        def cases() -> Iterator[Case]:
            yield case("one", np.ones((1, 3), np.float32))
            yield case("three", np.ones((3, 3), np.float32))
            yield case("evaluated-0", data[:4], evaluation=True)
            yield case("evaluated-1", data[4:], evaluation=True)

        def metric(outputs: Iterator[Any]) -> dict[str, float]:
            return {"positive": float(np.mean(np.concatenate([o["logits"] for o in outputs]) > 0))}

        return Exported(cases(), metric, tolerance)

    return write


@pytest.fixture
def linear() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2, bias=False)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def alone(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", folder / "run.py"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_equal_model_is_kept_with_what_was_compared(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "model"
    export(writer(), linear, rows, out, {"task": "linear"})
    record = json.loads((out / "export.json").read_text())
    assert record["task"] == "linear"
    assert record["rows"] == 1 + 3 + 7
    assert record["shapes"] == [f"[{n}, 3], [{n}, 2]" for n in (1, 3, 4)]
    assert record["largest_difference"] <= record["tolerance"] == 1e-5
    here, there = record["metric"]["positive"]
    assert here == there == np.mean(rows @ linear.weight.detach().numpy().T > 0)
    assert set(record["files"]) == {
        "model.py", "run.py", "weight.safetensors", "check/one.safetensors",
        "check/three.safetensors",
    }  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["model"]


# Rows of the evaluated part are somebody's data.
def test_the_evaluated_part_does_not_stay_in_the_folder(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    export(writer(), linear, rows, tmp_path / "model", {})
    kept = [load_file(file)["input.x"] for file in (tmp_path / "model/check").iterdir()]
    assert all((x == 1).all() for x in kept)


def test_the_folder_checks_itself(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    export(writer(), linear, rows, out, {})
    assert alone(out).returncode == 0
    weight = load_file(out / "weight.safetensors")["weight"]
    save_file({"weight": weight + np.float32(1e-4)}, out / "weight.safetensors")
    done = alone(out)
    assert done.returncode == 1
    assert "largest difference 3.0e-04, allowed 1e-05" in done.stdout


# pains/text_serving.md rows 10, 12
def test_another_model_is_refused_and_nothing_is_left(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    changed = writer(change=lambda weight: weight + np.float32([[0, 1e-3], [0, 0], [0, 0]]))
    with pytest.raises(RunError, match="differs by 0.00[0-9]+, so it is not kept") as caught:
        export(changed, linear, rows, tmp_path / "model", {})
    row = int(np.abs(rows[:, 0]).argmax())
    case = f"evaluated-{int(row >= 4)}"
    assert caught.value.where == f"output 'logits'[{row % 4}, 1] of case {case}"
    assert (caught.value.allowed, caught.value.exit_code) == ("1e-05", 1)
    assert list(tmp_path.iterdir()) == []


def test_the_user_may_name_the_tolerance(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    changed = writer(change=lambda weight: weight + np.float32(1e-4))
    record = export(changed, linear, rows, tmp_path / "model", {}, tolerance=1e-2)
    assert 1e-4 < record["largest_difference"] < record["tolerance"] == 1e-2


# A figure may jump where outputs hardly differ.
def test_another_figure_is_refused(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    torch.nn.init.constant_(linear.weight, 1e-6)
    turned = writer(change=lambda weight: -weight)
    share = np.mean(rows.sum(1) > 0)
    with pytest.raises(RunError, match=f"positive is {1 - share:.6g} with the written") as caught:
        export(turned, linear, rows, tmp_path / "model", {})
    assert caught.value.allowed == f"{share:.6g} within 1e-05"


@pytest.mark.parametrize(
    ("model", "said", "where"),
    [
        (MODEL.replace("@ weight", "@ weight[:, :1]"), r"ves \[4, 1\] where .* \[4, 2\]", "logits"),
        (MODEL.replace('"letters"', '"words"'), "gives nothing where the module gives", "letters"),
        (MODEL.replace("len(text)", "len(text) + 1"), "differs by 1, so it is not kept", "letters"),
        ("import renshu\n" + MODEL, "does not run by itself", "import of renshu halted"),
        ("import renshu_tasks\n" + MODEL, "does not run by itself", "renshu_tasks halted"),
        (MODEL.replace("@ weight", "@ nothing"), "does not run by itself", "'nothing' is not"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_do_it_alone_is_refused(
    model: str, said: str, where: str, linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=said) as caught:
        export(writer(model), linear, rows, tmp_path / "model", {})
    assert where in str(caught.value.where)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(
    linear: torch.nn.Linear, rows: np.ndarray, tmp_path: Path
) -> None:
    def write(*given: Any) -> Exported:
        writer()(*given)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(write, linear, rows, tmp_path / "model", {})
    assert list(tmp_path.iterdir()) == []


def test_difference_of_special_values() -> None:
    inf, nan = np.inf, np.nan
    one, other = np.array([1, nan, inf, nan, inf, 2]), np.array([1, nan, inf, 1, -inf, 4])
    assert difference(one, other).tolist() == [0, 0, 0, inf, inf, 2]
    assert difference(np.array([True, False]), np.array([True, True])).tolist() == [0, 1]


def test_a_run_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["export", str(tmp_path / "none"), "--to", "onnx"]) == 2
    assert "there is no run" in capsys.readouterr().err


def test_without_a_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run"]) == 2
    assert "--to" in capsys.readouterr().err


# NaN compares as neither more nor less than any difference, so it would allow everything.
@pytest.mark.parametrize("tolerance", ["nan", "inf", "-1", "much"])
def test_a_tolerance_that_is_none(tolerance: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--to", "onnx", f"--tolerance={tolerance}"]) == 2
    assert "tolerance" in capsys.readouterr().err
