"""Lightning's checkpoints become renshu's; nothing in them is run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import renshu
from renshu.cli.main import main


def build(base: type) -> type:
    class Net(base):
        def __init__(self, width: int = 4, rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(batch).pow(2).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)

    return Net


@pytest.fixture(scope="module")
def lightning_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pl = pytest.importorskip("pytorch_lightning")
    folder = tmp_path_factory.mktemp("lightning")
    module = build(pl.LightningModule)(width=5)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=2, default_root_dir=folder, enable_checkpointing=False,
            **quiet,
        )  # fmt: skip
        trainer.fit(module, DataLoader(torch.randn(24, 3), 8))  # type: ignore[arg-type]
        trainer.save_checkpoint(folder / "old.ckpt")
    return folder / "old.ckpt", {k: v.clone() for k, v in module.state_dict().items()}


def test_a_checkpoint_of_lightning_is_taken_over(
    lightning_file: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    file, weights = lightning_file
    assert main(["import-lightning", str(file), "--out", "new"]) == 0
    said = capsys.readouterr().out
    assert f"taken     state_dict: weights and buffers, {len(weights)} entries" in said
    assert "taken     global_step: number of the optimiser step, 6" in said
    assert "left out  optimizer_states: a fit starts anew from the weights" in said
    assert "left out  loops" in said

    module = build(renshu.Module).load_from_checkpoint("new")  # type: ignore[attr-defined]
    assert module.hparams.width == 5
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    assert renshu.checkpoints.read_manifest("new").step == 6
    assert not list(Path("new").glob("*.ckpt"))


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_code_in_the_file_is_refused_and_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"w": torch.ones(1)}, "hyper_parameters": Evil()}, "evil.ckpt")
    assert main(["import-lightning", "evil.ckpt"]) == 2
    said = capsys.readouterr().err
    assert "more than tensors and plain values" in said and "Traceback" not in said
    assert not Path("ran").exists() and not Path("evil").exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", b"\x80\x02K\x01."])
def test_a_damaged_file_is_refused(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.ckpt").write_bytes(content)
    assert main(["import-lightning", "bad.ckpt"]) == 2
    assert "bad.ckpt" in capsys.readouterr().err


def test_other_wrong_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-lightning", "none.ckpt"]) == 2
    assert "there is no such file" in capsys.readouterr().err
    Path("there").mkdir()
    torch.save({"state_dict": {}}, "there.ckpt")
    assert main(["import-lightning", "there.ckpt"]) == 2
    assert "something is there already" in capsys.readouterr().err
    assert main(["import-lightning"]) == 2
    assert "FILE.ckpt" in capsys.readouterr().err
