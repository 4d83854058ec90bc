"""The service answers with a mask on the grid of the scan, and refuses what is no scan."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.__package }} import serve
from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.train import train

SMALL = ["--data.patches=4", "--data.patch=[16, 16, 16]"]
SMALL += ['--data.label_map={"0": 0, "255": 1}']
SMALL += ["--model.name=unet", "--model.width=4", "--model.depth=2"]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A service of a model that has seen a few bright cubes."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    for number in range(6):
        voxels = np.random.default_rng(number).normal(0, 0.1, (20, 20, 20)).astype(np.float32)
        for folder in ("images", "labels"):
            voxels = voxels if folder == "images" else np.zeros_like(voxels)
            voxels[6:12, 6:12, 6 + number : 12 + number] = 1 if folder == "images" else 255
            scan = nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1]))
            nibabel.save(scan, tmp_path / "scans" / folder / f"case-{number}.nii.gz")
    flags = [*SMALL, "--data.path=scans", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    run = train(read_config(flags)).run_dir
    monkeypatch.setenv("MODEL", f"{run}/model")
    serve.model.cache_clear()
    serve.label_map.cache_clear()
    return TestClient(serve.app)


def test_a_scan_gets_a_mask_in_its_own_space(client: TestClient, tmp_path: Path) -> None:
    scan = tmp_path / "scans" / "images" / "case-0.nii.gz"
    answer = client.post("/predict", content=scan.read_bytes())
    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    mask, image = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(scan)
    assert mask.shape == image.shape
    assert np.allclose(mask.affine, image.affine)
    assert set(np.unique(mask.dataobj)) <= {0, 255}  # the values of the masks it learned from
    assert len(client.get("/health").json()["classes"]) == 2


def test_what_is_no_scan_is_refused(client: TestClient) -> None:
    assert client.post("/predict", content=b"not a scan").status_code == 422
