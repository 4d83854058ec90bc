"""Gradient accumulation is exact, whatever the sizes of the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from renshu.module import Module
from small_models import Classifier, digits, equal, loader, trainer, weights


class Gradients(Classifier):
    """Keeps the gradient that each optimiser step used."""

    def __init__(self) -> None:
        super().__init__(lr=0.0)
        self.seen: list[torch.Tensor] = []

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.seen.append(torch.cat([p.grad.flatten().clone() for p in self.parameters()]))


def full_gradient(rows: slice, n: int = 96) -> torch.Tensor:
    module = Classifier(lr=0.0)
    images, labels = digits(n)
    cross_entropy(module(images[rows]), labels[rows]).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters()])


# pains/trainer.md row 5
def test_the_last_short_window_is_a_mean_of_what_it_has() -> None:
    module = Gradients()
    run = trainer(accumulate_grad_batches=4)
    run.fit(module, loader(80, shuffle=False))
    assert run.global_step == 3
    torch.testing.assert_close(module.seen[2], full_gradient(slice(64, 80)), atol=1e-7, rtol=1e-5)


def test_a_short_last_batch_counts_by_its_samples() -> None:
    module = Gradients()
    trainer(accumulate_grad_batches=4).fit(module, loader(27, shuffle=False))
    torch.testing.assert_close(module.seen[0], full_gradient(slice(0, 27)), atol=1e-7, rtol=1e-5)


def test_equal_batches_are_bit_equal_to_dividing_by_the_window() -> None:
    ours, theirs = Classifier(), Classifier()
    trainer(accumulate_grad_batches=3).fit(ours, loader(72, shuffle=False))
    optimizer = theirs.configure_optimizers()
    images, labels = digits(72)
    for start in range(0, 72, 24):
        optimizer.zero_grad()
        for i in range(start, start + 24, 8):
            (cross_entropy(theirs(images[i : i + 8]), labels[i : i + 8]) / 3).backward()
        optimizer.step()
    assert equal(weights(ours), weights(theirs))


# pains/trainer.md row 4
@pytest.mark.parametrize("form", ["mean", "sum", "tensor"])
def test_token_losses_accumulate_to_the_gradient_of_the_whole_batch(form: str) -> None:
    """Rows have unequal numbers of tokens: the mean is over tokens, not over rows or batches."""

    class Tokens(Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = torch.nn.Linear(64, 10)
            self.seen: list[torch.Tensor] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            images, labels, mask = batch
            losses = cross_entropy(self.net(images), labels, reduction="none")
            total, count = (losses * mask).sum(), mask.sum()
            if form == "sum":
                return {"loss_sum": total, "num_items": int(count)}
            return {"loss": total / count, "num_items": count if form == "tensor" else int(count)}

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.seen.append(torch.cat([p.grad.flatten().clone() for p in self.parameters()]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    images, labels = digits(64)
    mask = torch.zeros(64)
    mask[torch.randperm(64)[:29]] = 1
    mask[::16] = 1
    data = torch.utils.data.TensorDataset(images, labels, mask)
    module = Tokens()
    trainer(accumulate_grad_batches=4).fit(module, torch.utils.data.DataLoader(data, 16))
    whole = Tokens()
    losses = cross_entropy(whole.net(images), labels, reduction="none")
    ((losses * mask).sum() / mask.sum()).backward()
    expected = torch.cat([p.grad.flatten() for p in whole.parameters()])
    torch.testing.assert_close(module.seen[0], expected, atol=1e-6, rtol=1e-5)
