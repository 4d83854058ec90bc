"""Stochastic weight averaging, with torch.optim.swa_utils."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import SWALR, get_swa_avg_fn, update_bn

from renshu.callbacks.callback import Callback
from renshu.checkpoints.restore import capture_scheduler, restore_scheduler
from renshu.errors import ConfigError, unknown

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class StochasticWeightAveraging(Callback):
    """Ends a fit with the mean of the weights at the start of its last epochs (Izmailov 2018).

    From the epoch of the first one on the rate is annealed to `swa_lrs`, once an epoch, instead of
    the module's scheduler. At the end the mean takes the place of the weights, and batch norms
    get the statistics of one more pass over the training data. Checkpoints before hold what is
    trained; `trainer.save_checkpoint` after the fit saves the mean.

    Args:
        swa_lrs: the rate, or one for each parameter group.
        swa_epoch_start: the epoch (from 1) whose start is averaged first, or a share of max_epochs.
        annealing_epochs: epochs until the rate is reached; 0 is at once.
        annealing_strategy: "cos" or "linear".
        avg_fn: (mean, weights, number of averaged) → new mean; None gives all the same weight.
        device: where the mean is kept; None is where the weights are.

    Raises:
        ConfigError: an argument out of range; several optimisers or schedulers; a share of no
            max_epochs; batch norm with manual optimisation, which would train in the extra pass.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        avg_fn: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        device: torch.device | str | None = "cpu",
    ) -> None:
        start, rates = swa_epoch_start, swa_lrs if isinstance(swa_lrs, list) else [swa_lrs]
        if not (0 <= start <= 1 if isinstance(start, float) else start >= 1):
            allowed = "an epoch from 1 (int) or a share 0.0 to 1.0 (float)"
            raise ConfigError(f"swa_epoch_start={start!r}", allowed=allowed)
        if not rates or min(rates) <= 0:
            raise ConfigError(f"swa_lrs={swa_lrs!r}", allowed="a rate above 0, or a list of such")
        if annealing_strategy not in ("cos", "linear"):
            raise unknown("annealing_strategy", annealing_strategy, ("cos", "linear"))
        self._rates, self._first, self._device = swa_lrs, start, device
        self._annealing: Any = (annealing_epochs, annealing_strategy)
        self._avg_fn = avg_fn or get_swa_avg_fn()
        self._forget()

    def _forget(self) -> None:
        self.n_averaged, self._average = 0, dict[str, Tensor]()
        self._epoch, self._scheduler, self._saved = -1, None, None

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        if stage == "fit":
            self._forget()

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        for what, found in {
            "optimiser": trainer.optimizers,
            "scheduler": trainer.lr_scheduler_configs,
        }.items():
            if len(found) > 1:
                said = f"StochasticWeightAveraging works with one {what}, not with {len(found)}"
                raise ConfigError(said)
        norms = any(isinstance(part, _BatchNorm) for part in module.modules())
        if norms and not module.automatic_optimization:
            said = "batch norm with manual optimisation cannot be averaged"
            raise ConfigError(said, where="StochasticWeightAveraging", mend="WeightAveraging()")
        first = self._first
        if isinstance(first, float):
            if trainer.max_epochs is None:
                said = f"swa_epoch_start={first} is a share of max_epochs, which is not given"
                raise ConfigError(said, mend="an epoch as an int")
            first = int(first * trainer.max_epochs)
        self._start = max(first - 1, 0)
        if self._saved is not None:
            restore_scheduler(self._take_over(trainer), self._saved)

    def _take_over(self, trainer: Trainer) -> SWALR:
        trainer.lr_scheduler_configs.clear()
        rates: Any = self._rates
        self._scheduler = SWALR(trainer.optimizers[0], rates, *self._annealing)
        return self._scheduler

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        epoch = trainer.current_epoch
        if epoch < self._start or epoch == self._epoch:
            return
        if self._scheduler is None:
            self._take_over(trainer)
        self._epoch = epoch
        for name, parameter in module.named_parameters():
            weights = parameter.detach().to(self._device or parameter.device)
            if self.n_averaged == 0:
                self._average[name] = weights.clone()
            else:
                average, count = self._average[name], torch.tensor(self.n_averaged)
                average.copy_(self._avg_fn(average, weights, count.to(average.device)))
        self.n_averaged += 1

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._scheduler is not None:
            self._scheduler.step()

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        if self.n_averaged:
            for name, parameter in module.named_parameters():
                parameter.copy_(self._average[name])
            update_bn(trainer.rehearsals, _Rehearsed(module))

    def state_dict(self) -> dict[str, Any]:
        scheduler = self._scheduler and capture_scheduler(self._scheduler)
        state = {"epoch": self._epoch, "n_averaged": self.n_averaged}
        return {**state, "average": dict(self._average), "scheduler": scheduler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch, self.n_averaged = state_dict["epoch"], state_dict["n_averaged"]
        self._average, self._saved = state_dict["average"], state_dict["scheduler"]


class _Rehearsed(nn.Module):
    """What torch's update_bn takes for the model: a batch is its training step."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, step: Callable[[], Any]) -> None:
        step()
