"""Learning rates in the log: Lightning's names, and the rate that the step really used."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, StepLR

import tiny
from renshu.callbacks import LearningRateMonitor
from renshu.errors import ConfigError


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "run" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fit(folder: Path, module: tiny.Tiny, monitor: LearningRateMonitor, **options: Any) -> None:
    given = {"max_epochs": 2, "log_every_n_steps": 2, **options}
    tiny.trainer(folder, monitor, **given).fit(module, tiny.loader())


class Stepped(tiny.Tiny):
    """The rate halves after every second step."""

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=2.0**-4)
        scheduler = StepLR(optimizer, 2, gamma=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def test_a_row_holds_the_rate_its_step_used(tmp_path: Path) -> None:
    fit(tmp_path, Stepped(), LearningRateMonitor("step"), log_every_n_steps=1)
    found = [float(row["lr-SGD"]) for row in rows(tmp_path)]
    assert found == [2.0**-n for n in (4, 4, 5, 5, 6, 6, 7, 7)]


@pytest.mark.parametrize(
    ("interval", "steps"), [("step", [1, 3, 5, 7]), ("epoch", [0, 4]), (None, [0, 2, 4, 5])]
)
def test_the_interval(tmp_path: Path, interval: Any, steps: list[int]) -> None:
    every = 3 if interval is None else 2
    fit(tmp_path, Stepped(), LearningRateMonitor(interval), log_every_n_steps=every)
    assert [int(row["step"]) for row in rows(tmp_path) if row.get("lr-SGD")] == steps


class Several(tiny.Tiny):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def configure_optimizers(self) -> Any:
        return self.make(self.net)


def groups(net: Any, *names: str | None) -> list[dict[str, Any]]:
    parts = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.01}]
    return [{**p, **({"name": n} if n else {})} for p, n in zip(parts, names, strict=True)]


def with_name(net: Any) -> Any:
    optimizer = Adam(net.parameters())
    return [optimizer], [{"scheduler": StepLR(optimizer, 1), "name": "my-rate"}]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda net: Adam(net.parameters()), {"lr-Adam"}),
        (lambda net: SGD(groups(net, None, None), lr=0.1), {"lr-SGD/pg1", "lr-SGD/pg2"}),
        (lambda net: SGD(groups(net, "body", "head"), lr=0.1), {"lr-SGD/body", "lr-SGD/head"}),
        (
            lambda net: [SGD(net[0].parameters(), lr=0.1), SGD(net[2].parameters(), lr=0.1)],
            {"lr-SGD", "lr-SGD-1"},
        ),
        (
            lambda net: [Adam(net[0].parameters()), SGD(net[2].parameters(), lr=0.1)],
            {"lr-Adam", "lr-SGD"},
        ),
        (with_name, {"my-rate"}),
    ],
)
def test_names_are_lightnings(tmp_path: Path, make: Any, expected: set[str]) -> None:
    fit(tmp_path, Several(make), LearningRateMonitor())
    names = set(rows(tmp_path)[0]) - {"epoch", "step", "samples", "train_loss"}
    assert names == expected


def test_momentum_and_weight_decay(tmp_path: Path) -> None:
    def make(net: Any) -> Any:
        optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        scheduler = OneCycleLR(optimizer, max_lr=0.02, total_steps=8)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    monitor = LearningRateMonitor("step", log_momentum=True, log_weight_decay=True)
    fit(tmp_path, Several(make), monitor, log_every_n_steps=1)
    reference = OneCycleLR(SGD([torch.zeros(1)], lr=0.1, momentum=0.9), 0.02, total_steps=8)
    for row in rows(tmp_path):
        group = reference.optimizer.param_groups[0]
        assert float(row["lr-SGD"]) == group["lr"]
        assert float(row["lr-SGD-momentum"]) == group["momentum"]
        assert float(row["lr-SGD-weight_decay"]) == 0.01
        reference.optimizer.step()
        reference.step()


def test_a_group_added_during_the_fit_is_logged(tmp_path: Path) -> None:
    class Unfreezes(tiny.Tiny):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                group = {"params": list(self.net[2].parameters()), "lr": 0.5}
                self.trainer.optimizers[0].add_param_group(group)

        def configure_optimizers(self) -> Any:
            return SGD(self.net[0].parameters(), lr=0.1)

    fit(tmp_path, Unfreezes(), LearningRateMonitor("step"), log_every_n_steps=4)
    first, last = [row for row in rows(tmp_path) if row["step"] in ("3", "7")]
    assert first["lr-SGD"] == "0.1"
    assert (last["lr-SGD/pg1"], last["lr-SGD/pg2"]) == ("0.1", "0.5")


def test_what_cannot_be_logged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'minute'"):
        LearningRateMonitor("minute")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a logger"):
        fit(tmp_path / "a", tiny.Tiny(), LearningRateMonitor(), logger=False)
    with pytest.raises(ConfigError, match="named 'lr-SGD/same'"):
        twice = Several(lambda net: SGD(groups(net, "same", "same"), lr=0.1))
        fit(tmp_path / "b", twice, LearningRateMonitor())
