"""Several optimisers in automatic mode, each with its own loss, frequency, clipping, schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.optim.lr_scheduler import StepLR

import renshu
from renshu.errors import ConfigError
from small_models import trainer


def batches(count: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(16, 2, generator=generator) * 0.5 + 2 for _ in range(count)]


class GAN(renshu.Module):
    """Points around (2, 2) made from noise that is a function of the batch: nothing is drawn."""

    def __init__(self, frequency: int = 1, clip: float | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
        self.critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        self.frequency, self.clip = frequency, clip

    def losses(self, real: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.generator(real.flip(0).sin())
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        fooled = cross_entropy(self.critic(made), ones)
        told = cross_entropy(self.critic(real), ones)
        told = told + cross_entropy(self.critic(made.detach()), zeros)
        return {"generator": fooled, "critic": told}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"losses": self.losses(batch)}

    def configure_optimizers(self) -> Any:
        generator = torch.optim.Adam(self.generator.parameters(), lr=0.01)
        critic = torch.optim.SGD(self.critic.parameters(), lr=0.1)
        schedule = {"scheduler": StepLR(critic, 4, 0.5), "interval": "step"}
        return [
            {"optimizer": generator, "name": "generator", "frequency": self.frequency},
            {
                "optimizer": critic,
                "name": "critic",
                "gradient_clip_val": self.clip,
                "lr_scheduler": schedule,
            },
        ]


def by_hand(module: GAN, data: list[torch.Tensor]) -> None:
    first, second = module.configure_optimizers()
    generator, critic = first["optimizer"], second["optimizer"]
    for number, real in enumerate(data, 1):
        losses = module.losses(real)
        own = list(module.generator.parameters())
        grads = torch.autograd.grad(losses["generator"], own, retain_graph=True)
        critic.zero_grad()
        losses["critic"].backward()
        for parameter, grad in zip(own, grads, strict=True):
            parameter.grad = grad
        if module.clip is not None:
            nn.utils.clip_grad_norm_(module.critic.parameters(), module.clip)
        if number % module.frequency == 0:
            generator.step()
        critic.step()
        second["lr_scheduler"]["scheduler"].step()


# pains/trainer.md: what none of the peers has
@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_gan_trains_without_manual_mode(frequency: int, clip: float | None) -> None:
    ours, theirs = GAN(frequency, clip), GAN(frequency, clip)
    run = trainer(max_epochs=1)
    run.fit(ours, batches())
    by_hand(theirs, batches())
    for name, weight in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], weight, atol=1e-7), name
    assert run.global_step == 12
    assert run.optimizers[1].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_a_frequency_holds_with_one_loss_too() -> None:
    class Slow(GAN):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return sum(self.losses(batch).values())

    module = Slow(frequency=100)
    before = {name: p.clone() for name, p in module.generator.state_dict().items()}
    trainer(max_epochs=1).fit(module, batches())
    assert all(torch.equal(p, before[n]) for n, p in module.generator.state_dict().items())


def test_a_resumed_gan_is_the_same() -> None:
    whole, parted, again = GAN(3), GAN(3), GAN(3)
    trainer(max_epochs=2, run="w", enable_checkpointing=True).fit(whole, batches())
    trainer(max_steps=17, run="p", enable_checkpointing=True).fit(parted, batches())
    trainer(max_epochs=2, run="p", enable_checkpointing=True).fit(
        again, batches(), ckpt_path="last"
    )
    for name, weight in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_wrong_names_and_numbers_are_said_before_a_step() -> None:
    class Misnamed(GAN):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"losses": {"generater": self.losses(batch)["generator"]}}

    with pytest.raises(ConfigError, match="did you mean 'generator'"):
        trainer().fit(Misnamed(), batches())
    with pytest.raises(ConfigError, match="optimiser frequency 0"):
        trainer().fit(GAN(0), batches())
    with pytest.raises(ConfigError, match="without accumulation"):
        trainer(accumulate_grad_batches=2).fit(GAN(), batches())
