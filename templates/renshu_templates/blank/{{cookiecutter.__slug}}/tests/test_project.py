"""What must stay true whatever is changed: it trains, learns and is loaded again."""

from pathlib import Path

import pytest
import torch
from renshu.errors import ConfigError, DataError

from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.data import DataOptions, TableData
from {{ cookiecutter.__package }}.model import Classifier
from {{ cookiecutter.__package }}.train import train

SHORT = ["--trainer.max_epochs", "5", "--trainer.accelerator", "cpu", "--trainer.logger", "csv"]


def test_the_parts_share_no_row() -> None:
    data = TableData(DataOptions())
    parts = [set(rows) for rows in data.parts.values()]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) == len(data.rows)


def test_it_learns_and_the_model_that_is_kept_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(read_config([*SHORT])).run_dir
    assert run is not None
    model = Classifier.load_from_checkpoint(run / "model").eval()
    data = TableData(DataOptions())
    rows = data.parts["test"]
    with torch.no_grad():
        right = model(data.rows[rows]).argmax(1) == data.labels[rows]
    assert right.float().mean() > 0.9
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("flag", ["--data.pth=x", "--trainer.max_epochs=many", "--model.width=a"])
def test_a_wrong_value_is_refused_before_anything_starts(flag: str) -> None:
    with pytest.raises(ConfigError):
        train(read_config([flag]))


def test_a_value_that_is_no_number_is_named(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,class\n1,x\ntwo,y\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 3"):
        TableData(DataOptions(path=str(table)))
