"""What must stay true whatever is changed: it trains, finds what is strange, is loaded again."""

import csv
import math
import random
from pathlib import Path

import pytest
from renshu.errors import ConfigError
from renshu_tasks.anomaly.online import Online

from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.data import DataOptions, load
from {{ cookiecutter.__package }}.model import Detector
from {{ cookiecutter.__package }}.train import train

SHORT = ["--trainer.max_epochs=5", "--trainer.accelerator=cpu", "--trainer.logger=csv"]
NETWORK = ["--model.name=cnn", "--model.window=20"]
STRANGE = range(1500, 1520)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A noisy wave that stands still for twenty points."""
    draw, file = random.Random(0), tmp_path / "wave.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["value", "label"])
        for row in range(2000):
            wave = 0.0 if row in STRANGE else math.sin(row / 5)
            table.writerow([wave + draw.gauss(0, 0.05), int(row in STRANGE)])
    return file


def test_the_parts_follow_each_other_in_time(series: Path) -> None:
    data = load(DataOptions(path=str(series), train_end=1000))
    assert data.parts == {"train": (0, 800), "val": (800, 1000), "test": (1000, 2000)}
    assert list(data.series.channels) == ["value"]


def test_it_finds_what_is_strange_and_the_model_that_is_kept_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, series: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    own = [f"--data.path={series}", "--data.train_end=1000", "--training.false_alarms=0.01"]
    run = train(read_config([*SHORT, *NETWORK, *own])).run_dir
    assert run is not None
    model = Detector.load_from_checkpoint(run / "model").eval()
    values = load(DataOptions(path=str(series), train_end=1000)).series.values
    alarms = {row for row, verdict in enumerate(Online(model).extend(values)) if verdict.alarm}
    assert alarms & set(STRANGE)
    assert len(alarms - set(range(1500, 1560))) < 60
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("flag", ["--data.pth=x", "--trainer.max_epochs=many", "--model.window=0"])
def test_a_wrong_value_is_refused_before_anything_starts(flag: str, series: Path) -> None:
    with pytest.raises(ConfigError):
        train(read_config([flag, "--data.path", str(series)]))
