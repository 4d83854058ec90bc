"""Each precision does what its name says; a skipped update of 16-mixed counts nowhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from renshu.errors import ConfigError
from renshu.precision import precision_name
from small_models import Classifier, loader, trainer


class Dtypes(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        self.seen = (batch[0].dtype, self.net[0].weight.dtype, logits.dtype)
        return cross_entropy(logits, batch[1])


@pytest.mark.parametrize(
    ("precision", "dtypes"),
    [
        ("32-true", (torch.float32, torch.float32, torch.float32)),
        ("bf16-mixed", (torch.float32, torch.float32, torch.bfloat16)),
        ("16-mixed", (torch.float32, torch.float32, torch.float16)),
        ("bf16-true", (torch.bfloat16, torch.bfloat16, torch.bfloat16)),
        ("64-true", (torch.float64, torch.float64, torch.float64)),
    ],
)
def test_dtypes_of_batch_weights_and_outputs(precision: str, dtypes: Any) -> None:
    module = Dtypes()
    trainer(precision=precision).fit(module, loader(16))
    assert module.seen == dtypes
    assert torch.get_default_dtype() is torch.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("short", "name"),
    [("32", "32-true"), (32, "32-true"), ("bf16", "bf16-mixed"), (16, "16-mixed"),
     (64, "64-true"), ("bf16-true", "bf16-true")],
)  # fmt: skip
def test_short_names_are_lightnings(short: Any, name: str) -> None:
    assert precision_name(short) == name


def test_an_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bf16-mixed, bf16-true, 16-mixed"):
        precision_name("fp16")


# pains/trainer.md row 24
def test_a_skipped_update_of_16_mixed_steps_neither_scheduler_nor_counter() -> None:
    class Explodes(Classifier):
        lrs: list[float]

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = cross_entropy(self(batch[0]), batch[1])
            # The scaled gradient overflows once; the loss itself stays finite.
            return loss * 1e30 if batch_idx == 2 else loss

        def on_train_batch_end(self, *_: Any) -> None:
            self.lrs.append(self.trainer.optimizers[0].param_groups[0]["lr"])

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    module, run = Explodes(lr=1.0), trainer(precision="16-mixed")
    module.lrs = []
    run.fit(module, loader(48))
    assert (run.global_step, run.progress.skipped, run.progress.batches) == (5, 1, 6)
    assert run.optimizers[0].param_groups[0]["lr"] == 0.5**5
    assert run.precision.scaler.get_scale() == 2.0**15


@pytest.mark.parametrize("clip", [None, 0.1])
def test_16_mixed_equals_the_scaler_by_hand(clip: float | None) -> None:
    ours, theirs = Classifier(), Classifier()
    trainer(precision="16-mixed", gradient_clip_val=clip).fit(ours, loader(shuffle=False))
    optimizer, scaler = theirs.configure_optimizers(), torch.amp.GradScaler("cpu")
    for images, labels in loader(shuffle=False):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = cross_entropy(theirs(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if clip:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
