"""renshu doctor: what is here, what is wrong, and the command that mends it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from renshu.cli import doctor
from renshu.cli.main import main


def checks() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine()}


def without(name: str) -> Callable[[str], str]:
    """`importlib.metadata.version` on a machine that lacks one package."""

    def lacking(asked: str) -> str:
        if asked == name:
            raise PackageNotFoundError(asked)
        return version(asked)

    return lacking


# capabilities A4
def test_a_usable_machine_is_told_in_words_and_in_json(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "write permission" in text and text.endswith("\nusable\n")
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is True
    named = {check["name"]: check for check in found["checks"]}
    assert named["torch"]["found"] == version("torch")
    assert named["cpu"]["found"].count(torch.backends.cpu.get_cpu_capability()) == 1
    assert named["task image_classification"]["status"] == "ok"


def test_every_extra_for_users_is_listed():
    names = set(checks())
    assert {"[vision]", "[report]", "[tensorboard]", "[demo]"} <= names
    assert not {"[dev]", "[all]", "[parity]"} & names


def test_a_missing_core_package_is_broken_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(doctor, "version", without("safetensors"))
    check = checks()["safetensors"]
    assert (check.status, check.found) == ("broken", "not installed")
    assert check.mend is not None
    assert check.mend.startswith('pip install "safetensors>=')
    assert main(["doctor"]) == 1
    assert "not usable" in capsys.readouterr().out


def test_a_core_package_that_is_too_old_is_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "version", lambda name: "1.0" if name == "torch" else version(name))
    assert checks()["torch"].status == "broken"
    # torchvision names the torch that it was built for.
    assert "needs torch" in checks()["torchvision and torch"].found


def test_a_missing_optional_package_is_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "version", without("torchvision"))
    check = checks()["[vision]"]
    assert (check.status, check.found) == ("note", "without torchvision")
    assert check.mend == 'pip install "renshu[vision]"'


def test_a_folder_that_cannot_be_written_is_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/proc/self")
    check = checks()["write permission"]
    assert check.status == "broken"
    assert "default_root_dir" in str(check.mend)


def test_a_full_disk_is_broken(monkeypatch: pytest.MonkeyPatch):
    usage = doctor.shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    found = checks()
    assert found["disk"].status == "broken"
    assert "--shm-size" in str(found["shared memory"].mend)


def test_a_torch_that_cannot_be_imported_is_broken_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = checks()
    assert found["import torch"].status == "broken"
    assert "pip install" in str(found["import torch"].mend)
    assert "disk" in found


@pytest.mark.parametrize(
    ("program", "status"), [(sys.executable, "ok"), ("/elsewhere/python", "note")]
)
def test_a_notebook_kernel_must_run_this_python(
    program: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kernel = tmp_path / "kernels" / "mine"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": [program, "-m", "ipykernel"]}))
    (tmp_path / "kernels" / "odd").mkdir()
    (tmp_path / "kernels" / "odd" / "kernel.json").write_text("{")
    monkeypatch.setattr(doctor.sys, "prefix", str(tmp_path / "none"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(
        doctor, "version", lambda name: "7.0" if name == "ipykernel" else version(name)
    )
    check = checks()["notebook"]
    assert check.status == status
    assert ("ipykernel install" in str(check.mend)) == (status == "note")
