"""The largest batch size that fits into memory, found by trying."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from renshu import planning
from renshu.combined import MODES, CombinedLoader
from renshu.errors import ConfigError, RunError, unknown
from renshu.messages import say
from renshu.trial import Search, Setting, run, trial

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.plan import Plan
    from renshu.trainer import Trainer

_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUDNN_STATUS_NOT_SUPPORTED",  # what cuDNN says when its workspace does not fit
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
)


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error is that of an allocator, on whatever device, which found no memory."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(said in text for said in _OUT_OF_MEMORY)


class BatchSizeFinder(Search):
    """Finds the largest batch size that fits into memory when a fit or evaluation starts.

    Each trial runs some steps and leaves no trace. The size is set on module or data module, or on
    their `hparams`, whose loader must use it. A resumed fit keeps what was found. For another
    moment override `on_fit_start` and call `scale_batch_size`.

    Args:
        mode: power doubles the size until memory ends; binsearch then halves the gap.
        steps_per_trial: batches per trial.
        init_val: the first size; halved if it does not fit.
        max_trials: the most trials.
        batch_arg_name: name of the attribute or hyper-parameter.
        margin: share by which binsearch lowers what it found; 0 to below 1.
        max_val: the largest size that is tried.

    Raises:
        ConfigError: nothing of that name, loaders given directly, or several processes.
        RunError: no size that was tried fits.
    """

    def __init__(
        self,
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ):
        self._mode = mode.lower()
        if self._mode not in ("power", "binsearch"):
            raise unknown("mode", mode, ("power", "binsearch"), "scale_batch_size")
        if not 0 <= margin < 1:
            raise ConfigError(f"margin={margin}", allowed="0 to below 1")
        if min(steps_per_trial, init_val, max_trials, max_val - init_val + 1) < 1:
            said = "steps_per_trial, init_val and max_trials from 1, max_val from init_val"
            raise ConfigError("the search has nothing to try", allowed=said)
        self._steps, self._first, self._trials = steps_per_trial, init_val, max_trials
        self._name, self._margin, self._most = batch_arg_name, margin, max_val

    @property
    def optimal_batch_size(self) -> int | None:
        """What was found; None before."""
        return self.found

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        if trainer._require_plan().stage == "validation":
            self.scale_batch_size(trainer, module)

    def on_test_start(self, trainer: Trainer, module: Module) -> None:
        self.scale_batch_size(trainer, module)

    on_predict_start = on_test_start

    def scale_batch_size(self, trainer: Trainer, module: Module) -> None:
        """Search, and go on with the size that was found."""
        if trainer.fast_dev_run:
            say("fast_dev_run: the batch size is not searched")
            return
        plan = trainer._require_plan()
        if plan.given.get(plan.stage) is not None:
            said = "the loader is given directly: its batch size cannot be changed"
            allowed = "a DataModule, or a module with train_dataloader"
            raise ConfigError(said, where="scale_batch_size", allowed=allowed)
        if plan.stage != "train" and len(plan.val_feeds) > 1:
            raise ConfigError("several loaders", where="scale_batch_size", allowed="one")
        Setting(plan, self._name)
        self.found = self._largest(lambda size: self._fits(plan, size), plan)
        self.use(plan)

    search = scale_batch_size

    def _largest(self, fits: Callable[[int], bool], plan: Plan) -> int:
        """The search. A size that passes the number of samples is the last one tried."""
        size, low, high = self._first, 0, 0
        feed = plan.feed if plan.stage == "train" else plan.val_feeds[0]
        enough = min(_samples(feed.loader), self._most)
        for _ in range(self._trials):
            if fits(size):
                low = size
            else:
                high = size
            say(f"batch size {size}: {'fits' if low == size else 'does not fit'}")
            if not high:
                if size >= enough:
                    break
                size = min(2 * size, self._most)
            elif high - low <= 1 or (low and self._mode == "power"):
                break
            else:
                size = (low + high) // 2
        if low == 0:
            raise RunError(
                f"not even a batch of {high} fits into memory",
                where="scale_batch_size",
                mend="a smaller init_val, more max_trials, a smaller model, precision bf16-mixed",
            )
        return max(1, int(low * (1 - self._margin))) if self._mode == "binsearch" else low

    def _fits(self, outer: Plan, size: int) -> bool:
        limits = {f"limit_{name}_batches": self._steps for name in ("val", "test", "predict")}
        whole = {"limit_train_batches": None, "overfit_batches": 0, "max_steps": self._steps}
        setting = Setting(outer, self._name)
        try:
            with trial(outer.trainer, outer.module, **limits, **whole) as plan, setting.tried(size):
                self._load(plan)
                if plan.stage == "train" and plan.feed.length == 0:
                    return False  # drop_last, and fewer samples than that
                run(plan)
                return True
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        # Outside of `except`: the error holds on to what did fit.
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()
        return False

    def _load(self, plan: Plan) -> None:
        """Ask for the stage's loader again."""
        found = planning.feeds(plan, None, plan.stage)
        if plan.stage == "train":
            plan.feed = found[0]
        else:
            plan.val_feeds = found

    def use(self, plan: Plan) -> None:
        Setting(plan, self._name).set(self.found)
        say(f"{self._name} = {self.found}")
        for feed in plan.feeds:
            feed.close()
        self._load(plan)
        if plan.stage == "train" and plan.val_feeds:
            given = plan.given.get("validation")
            plan.val_feeds = planning.feeds(plan, given, "validation", needed=False)
        if plan.stage == "train" and plan.progress.batches == 0:
            planning.plan_optimisation(plan)  # schedulers may count the steps


def _samples(loader: Any) -> float:
    """Samples an epoch; infinite when unknown."""
    loaders = loader.flattened if isinstance(loader, CombinedLoader) else [loader]
    sizes = [float("inf")]
    with suppress(TypeError, AttributeError, NotImplementedError):
        sizes = [len(part.dataset) for part in loaders]
    return MODES[getattr(loader, "mode", "max_size")](sizes)
