"""What must stay true whatever is changed: it trains, learns and is loaded again."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from renshu.errors import ConfigError

from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.data import DataOptions, load
from {{ cookiecutter.__package }}.model import ModelOptions, Segmentation, TrainingOptions
from {{ cookiecutter.__package }}.train import train

SHORT = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.logger=csv"]
SMALL = ["--data.patches=32", "--data.batch_size=4", "--data.patch=[16, 16, 16]"]
SMALL += ["--model.name=unet", "--model.width=8", "--model.depth=2", "--training.full_cases=1"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Ten scans of a bright ball, each of its own patient."""
    draw, axes = np.random.default_rng(0), np.indices((24, 24, 24))
    for name in ("images", "labels"):
        (tmp_path / "scans" / name).mkdir(parents=True)
    for number in range(10):
        centre = draw.uniform(8, 16, 3)
        ball = np.sum((axes - centre[:, None, None, None]) ** 2, axis=0) < 36
        image = ball + draw.normal(0, 0.3, ball.shape)
        for folder, voxels in (("images", image), ("labels", ball)):
            scan = nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4))
            nibabel.save(scan, tmp_path / "scans" / folder / f"case-{number}.nii.gz")
    return tmp_path / "scans"


def test_the_parts_share_no_patient(scans: Path) -> None:
    data = load(DataOptions(path=str(scans)), ModelOptions(), TrainingOptions())
    parts = [{data.records[row].patient for row in rows} for rows in data.parts.values()]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 10


def test_it_learns_and_the_model_that_is_kept_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scans: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(read_config([*SHORT, *SMALL, f"--data.path={scans}"])).run_dir
    assert run is not None
    model = Segmentation.load_from_checkpoint(run / "model").eval()
    data = load(DataOptions(path=str(scans)), ModelOptions(), TrainingOptions())
    for case in data.cases("test"):
        mask = model.answer(case).mask
        assert case.mask is not None
        assert 2 * np.sum(mask * case.mask) / np.sum(mask + case.mask) > 0.7
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("flag", ["--data.pth=x", "--trainer.max_epochs=many", "--model.width=0"])
def test_a_wrong_value_is_refused_before_anything_starts(flag: str, scans: Path) -> None:
    with pytest.raises(ConfigError):
        train(read_config([flag, f"--data.path={scans}"]))
