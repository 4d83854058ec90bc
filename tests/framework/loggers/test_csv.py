"""metrics.csv: one row a step, exact numbers, nothing lost or twice after a kill."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from renshu.errors import RunError
from renshu.loggers.csv import CSVLogger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def opened(folder: Path, *, resume: bool = False, **kwargs: int) -> CSVLogger:
    logger = CSVLogger(**kwargs)
    logger.open(folder, resume=resume)
    return logger


def test_values_of_one_step_are_one_row(tmp_path: Path) -> None:  # pains/trainer.md row 29
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 1.5, "epoch": 0, "samples": 8}, step=0)
    logger.log_metrics({"val_loss": 2.5, "epoch": 0, "samples": 8}, step=0)
    logger.log_metrics({"loss": 1.25, "epoch": 1, "samples": 16}, step=1)
    logger.finalize("success")
    assert rows(tmp_path) == [
        {"epoch": "0", "step": "0", "samples": "8", "loss": "1.5", "val_loss": "2.5"},
        {"epoch": "1", "step": "1", "samples": "16", "loss": "1.25", "val_loss": ""},
    ]
    assert (tmp_path / "metrics.csv").read_text().startswith("epoch,step,samples,loss,val_loss\n")


def test_numbers_read_back_as_the_same_floats(tmp_path: Path) -> None:
    values = {"a": 0.1 + 0.2, "b": -1e-300, "c": math.inf, "d": -math.inf, "e": math.nan, "f": 7}
    logger = opened(tmp_path)
    logger.log_metrics(values, step=3)
    logger.finalize("success")
    [row] = rows(tmp_path)
    assert all(float(row[k]) == v for k, v in values.items() if k != "e")
    assert math.isnan(float(row["e"]))
    assert row["f"] == "7"


def test_a_new_name_adds_a_column_and_keeps_the_rows(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()
    logger.log_metrics({"loss": 0.5, "accuracy": 0.9}, step=1)
    logger.log_metrics({"epoch": 1}, step=2)
    logger.finalize("success")
    assert [row["accuracy"] for row in rows(tmp_path)] == ["", "0.9", ""]
    assert list(rows(tmp_path)[0]) == ["epoch", "step", "loss", "accuracy"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_value_that_comes_after_the_save_joins_its_row(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.log_metrics({"loss": 2.0}, step=1)
    logger.save()
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]
    logger.log_metrics({"val_loss": 4.0}, step=1)
    logger.log_metrics({"loss": 3.0}, step=2)
    logger.save()
    assert [(r["step"], r["loss"], r["val_loss"]) for r in rows(tmp_path)] == [
        ("0", "1.0", ""),
        ("1", "2.0", "4.0"),
        ("2", "3.0", ""),
    ]


def test_rows_reach_the_file_without_a_save_and_without_a_write_each(tmp_path: Path) -> None:
    logger = opened(tmp_path, flush_logs_every_n_steps=10)
    for step in range(10):
        logger.log_metrics({"loss": float(step)}, step)
    assert not (tmp_path / "metrics.csv").exists()
    logger.log_metrics({"loss": 10.0}, 10)
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(10)]


@pytest.mark.parametrize(
    "name", ["=1+1", "+x", "-x", "@x", "\tx", "'x", 'a,b"c', "two\nlines", "ä"]
)
def test_odd_names_stay_one_column_and_are_no_formula(tmp_path: Path, name: str) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({name: -1.0}, step=0)
    logger.finalize("success")
    [row] = rows(tmp_path)
    written = next(key for key in row if key != "step")
    assert written[0] not in "=+-@\t\r"
    assert row[written] == "-1.0"
    again = opened(tmp_path, resume=True)
    again.log_metrics({name: -2.0}, step=1)
    again.finalize("success")
    assert [row[written] for row in rows(tmp_path)] == ["-1.0", "-2.0"]


def test_a_metric_called_step_does_not_replace_the_step(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"step": 99.0}, step=4)
    logger.finalize("success")
    assert rows(tmp_path) == [{"step": "4", "logged step": "99.0"}]


def test_after_a_resume_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    for step in range(6):
        logger.log_metrics({"loss": float(step)}, step)
    logger.save()
    again = opened(tmp_path, resume=True)
    for step in range(3, 6):
        again.log_metrics({"loss": float(step)}, step)
    again.log_metrics({"val_loss": 0.5}, 5)
    again.log_metrics({"loss": 6.0}, 6)
    again.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(7)]
    assert rows(tmp_path)[5] == {"step": "5", "loss": "5.0", "val_loss": "0.5"}


@pytest.mark.parametrize("torn", ["7", "7,", "7,1.", "\x00\x00\n", "7\n", "x,1.0\n"])
def test_a_torn_last_row_is_cut_off(tmp_path: Path, torn: str) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 5.0}, 5)
    logger.log_metrics({"loss": 6.0}, 6)
    logger.save()
    with (tmp_path / "metrics.csv").open("a", newline="") as file:
        file.write(torn)
    again = opened(tmp_path, resume=True)
    again.log_metrics({"loss": 7.0}, 7)
    again.finalize("success")
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        ("5", "5.0"),
        ("6", "6.0"),
        ("7", "7.0"),
    ]


def test_a_table_saved_by_a_spreadsheet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step;loss\r\n1;2,0\r\n")
    with pytest.raises(RunError, match=r"metrics\.csv"):
        opened(tmp_path, resume=True)


def test_a_step_that_falls_is_an_error_not_a_lost_value(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 1.0}, 5)
    with pytest.raises(RunError, match="step 4 was logged after 5"):
        logger.log_metrics({"loss": 1.0}, 4)


def test_what_is_logged_before_a_fit_is_refused_and_after_it_is_kept(tmp_path: Path) -> None:
    logger = CSVLogger()
    logger.finalize("failed")
    with pytest.raises(RunError, match="not open"):
        logger.log_metrics({"loss": 1.0}, 0)
    logger.open(tmp_path, resume=False)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.finalize("success")
    logger.log_metrics({"test_acc": 0.5}, 0)
    assert rows(tmp_path) == [{"step": "0", "loss": "1.0", "test_acc": "0.5"}]


def test_a_fresh_start_keeps_the_older_table(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        logger = opened(tmp_path)
        logger.log_metrics({"loss": value}, 0)
        logger.finalize("success")
    assert [row["loss"] for row in rows(tmp_path)] == ["3.0"]
    old = {path.name: path.read_text() for path in tmp_path.glob("metrics-*.csv")}
    assert old == {"metrics-1.csv": "step,loss\n0,1.0\n", "metrics-2.csv": "step,loss\n0,2.0\n"}


def test_a_full_disk_leaves_no_half_row_and_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 0.0}, 0)
    logger.save()
    logger.log_metrics({"loss": 1.0}, 1)
    real = Path.open

    class Full:
        def __init__(self, path: Path) -> None:
            self.file = real(path, "a", newline="")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, text: str) -> None:
            self.file.write(text[:3])
            self.file.flush()
            raise OSError(28, "No space left on device")

    def full(path: Path, mode: str = "r", **kwargs: str) -> object:
        return Full(path) if mode == "a" else real(path, mode, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OSError, match="No space"):
            logger.save()
    assert [row["step"] for row in rows(tmp_path)] == ["0"]
    logger.finalize("failed")
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]


def test_hyperparameters_are_plain_yaml(tmp_path: Path) -> None:
    import yaml

    logger = opened(tmp_path)
    params = {"lr": 0.1, "layers": (1, 2), "path": Path("a/b"), "text": "ä: #"}
    logger.log_hyperparams(params | {"nested": {1: None, "f": math.inf}})
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text()) == {
        "lr": 0.1,
        "layers": [1, 2],
        "path": "a/b",
        "text": "ä: #",
        "nested": {"1": None, "f": math.inf},
    }
