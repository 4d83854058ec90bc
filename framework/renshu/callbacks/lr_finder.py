"""The learning rate range test: the rate grows from step to step, the loss tells which is good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from renshu import planning
from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, unknown
from renshu.messages import say
from renshu.trial import Search, Setting, run, trial

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.plan import Plan
    from renshu.trainer import Trainer

_SMOOTHING = 0.98


@dataclass
class LRFinder:
    """What a range test found (Smith 2017, "Cyclical Learning Rates…", arXiv:1506.01186).

    Attributes:
        mode: exponential or linear growth from `lr_min` to `lr_max` in `num_training` steps.
        results: "lr" → the rate of each step, "loss" → its loss, smoothed.
    """

    mode: str
    lr_min: float
    lr_max: float
    num_training: int
    results: dict[str, list[float]] = field(default_factory=lambda: {"lr": [], "loss": []})

    def __post_init__(self) -> None:
        if self.mode not in ("exponential", "linear"):
            raise unknown("mode", self.mode, ("exponential", "linear"), "lr_find")
        if not 0 < self.lr_min < self.lr_max:
            said = f"min_lr={self.lr_min}, max_lr={self.lr_max}"
            raise ConfigError(said, where="lr_find", allowed="0 < min_lr < max_lr")
        if self.num_training < 1:
            raise ConfigError(f"{self.num_training} steps", where="lr_find", allowed="1, 2, 3 …")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0; the last one is `lr_max`."""
        share = (step + 1) / self.num_training if step else 0.0
        if self.mode == "linear":
            return self.lr_min + share * (self.lr_max - self.lr_min)
        return self.lr_min * (self.lr_max / self.lr_min) ** share

    def suggestion(self, skip_begin: int = 10, skip_end: int = 1) -> float | None:
        """The learning rate at which the loss falls most steeply.

        Args:
            skip_begin: steps at the beginning that are left out, where the loss is not yet settled.
            skip_end: steps at the end that are left out.

        Returns:
            None, with a message, if fewer than two finite losses are left.
        """
        index = self._steepest(skip_begin, skip_end)
        if index is None:
            left = f"after skipping {skip_begin} at the beginning and {skip_end} at the end"
            say(f"no learning rate can be suggested: too few finite losses {left}")
            return None
        return self.results["lr"][index]

    def plot(self, suggest: bool = False, show: bool = False, ax: Any = None) -> Any:
        """A matplotlib figure of the loss over the learning rate; `suggest` marks the suggestion.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            said = "the package matplotlib is missing"
            raise ConfigError(said, where="plot", mend="pip install matplotlib") from None
        figure, ax = plt.subplots() if ax is None else (ax.figure, ax)
        rates, losses = self.results["lr"], self.results["loss"]
        ax.plot(rates, losses)
        ax.set(xlabel="Learning rate", ylabel="Loss")
        if self.mode == "exponential":
            ax.set_xscale("log")
        if suggest and (best := self._steepest()) is not None:
            ax.plot(rates[best], losses[best], marker="o", markersize=10, color="red")
        if show:
            plt.show()
        return figure

    def _steepest(self, skip_begin: int = 10, skip_end: int = 1) -> int | None:
        steps = torch.arange(len(self.results["loss"]))[skip_begin:]
        steps = steps[: max(len(steps) - skip_end, 0)]
        rates, losses = (torch.tensor(self.results[name]).double() for name in ("lr", "loss"))
        steps = steps[losses[steps].isfinite()]
        if len(steps) < 2:
            return None
        (slope,) = torch.gradient(losses[steps], spacing=(rates[steps],))
        return int(steps[slope.argmin()])


class _Sweep(Callback):
    """Sets the rate of each step, notes its loss, and stops at the end or when it diverges."""

    def __init__(self, finder: LRFinder, threshold: float | None):
        self.finder, self.threshold = finder, threshold
        self.average, self.best, self.steps = 0.0, 0.0, 0

    def on_train_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int
    ) -> None:
        rate = self.finder.rate(len(self.finder.results["loss"]))
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        results, steps = self.finder.results, trainer.global_step
        if outputs is not None and steps == self.steps:
            return  # more batches belong to this step
        loss = float("nan") if outputs is None else self._smoothed(float(trainer.last_loss), steps)
        self.steps = steps
        results["lr"].append(self.finder.rate(len(results["loss"])))
        results["loss"].append(loss)
        limit = None if self.threshold is None or steps < 2 else self.threshold * self.best
        diverges = limit is not None and loss > limit
        if loss < self.best or steps == 1:
            self.best = loss
        if diverges or len(results["loss"]) == self.finder.num_training:
            trainer.should_stop = True

    def _smoothed(self, loss: float, steps: int) -> float:
        """Exponential average; its bias is taken out as Lightning does, one step too late."""
        self.average = _SMOOTHING * self.average + (1 - _SMOOTHING) * loss
        return self.average / (1 - _SMOOTHING ** (steps + 1))


class LearningRateFinder(Search):
    """Runs a learning rate range test when a fit starts, and trains with what it suggests.

    The test leaves no trace. `optimal_lr` is its result. A resumed fit keeps the rate that was
    found. For another moment override `on_fit_start` and call `lr_find`.

    Args:
        min_lr, max_lr: the rates of the first and the last step.
        num_training_steps: how many steps.
        mode: exponential or linear growth.
        early_stop_threshold: stop when the loss exceeds so many times the best; None: never.
        update_attr: set the rate on module or data module, or on their `hparams`.
        attr_name: its name there; "lr" or "learning_rate" unless given.

    Raises:
        ConfigError: several optimisers, several processes, or nothing of that name.
    """

    def __init__(
        self,
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ):
        self._test = (mode.lower(), min_lr, max_lr, num_training_steps)
        LRFinder(*self._test)
        self._threshold, self._update = early_stop_threshold, update_attr
        self._names = (attr_name,) if attr_name else ("lr", "learning_rate")
        self.optimal_lr: LRFinder | None = None

    def lr_find(self, trainer: Trainer, module: Module) -> None:
        """Run the test with the training data of the fit under way, and use what it suggests."""
        if trainer.fast_dev_run:
            say("fast_dev_run: the learning rate is not searched")
            return
        plan, result = trainer._require_plan(), LRFinder(*self._test)
        if self._update:
            Setting(plan, *self._names)
        if len(plan.optimizers) != 1:
            said = f"{len(plan.optimizers)} optimisers"
            raise ConfigError(said, where="lr_find", allowed="one; a range test needs one rate")
        with trial(trainer, module, _Sweep(result, self._threshold)) as test:
            test.feed = planning.feeds(test, plan.feed.loader, "train")[0]
            run(test)
        if len(result.results["loss"]) < result.num_training:
            say(f"the range test stopped after {len(result.results['loss'])} steps: it diverged")
        self.optimal_lr = result
        if self._update and (rate := result.suggestion()) is not None:
            self.found = rate
            self.use(plan)

    search = lr_find

    def use(self, plan: Plan) -> None:
        setting = Setting(plan, *self._names)
        setting.set(self.found)
        say(f"{setting.name} = {self.found:.4g}, by a learning rate range test")
        if plan.progress.batches == 0:
            planning.plan_optimisation(plan)  # schedulers start from it as well
        for group in plan.optimizers[0].param_groups if plan.progress.batches else ():
            group["lr"] = self.found
