"""What must stay true whatever is changed: it trains, learns, continues and is loaded again."""

from pathlib import Path

import pytest
import torch
from renshu.errors import ConfigError
from renshu_tasks.image_classification.data import ImageData

from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.data import DataOptions, load
from {{ cookiecutter.__package }}.model import Classifier
from {{ cookiecutter.__package }}.train import train

SHORT = ["--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.logger", "csv"]
CONFIG = Path(__file__).parent.parent / "config.yaml"


@pytest.fixture(scope="session")
def digits() -> ImageData:
    """The embedded digits, whatever config.yaml names by now."""
    return load(DataOptions())


def test_the_parts_share_no_picture(digits: ImageData) -> None:
    parts = [set(ids) for ids in digits.split_ids.values()]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_it_learns_and_the_model_that_is_kept_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: ImageData
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_config(["--config", str(CONFIG), *SHORT, "--data", "{}", "--model", "{}"])
    run = train(config).run_dir
    assert run is not None
    model = Classifier.load_from_checkpoint(run / "model").eval()
    pictures = torch.stack([digits.dataset("test").image(n) for n in range(200)])
    labels = [digits.sample("test", n)["labels"][0] for n in range(200)]
    with torch.no_grad():
        found = model.decide(model.probabilities(model.normalise(pictures)))
    right = sum(model.classes[k] == name for k, name in zip(found.tolist(), labels, strict=True))
    assert right / 200 > 0.9
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("flag", ["--data.pth=x", "--trainer.max_epochs=many", "--model.width=0"])
def test_a_wrong_value_is_refused_before_anything_starts(flag: str) -> None:
    with pytest.raises(ConfigError):
        train(read_config([flag]))
