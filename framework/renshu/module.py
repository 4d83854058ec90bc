"""Module: an nn.Module with steps, hooks, log() and optimisers; a plain torch loop can use it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from renshu.data import DataHooks, apply
from renshu.errors import ConfigError
from renshu.optim import clip, parameters
from renshu.weights import load_weights, read_state

if TYPE_CHECKING:
    from renshu.results import Results
    from renshu.trainer import Trainer

Closure = Callable[[], Any] | None


class Module(DataHooks, nn.Module):
    """A model with the code that trains it. Steps, hooks and their order are Lightning's.

    Override `training_step` and `configure_optimizers`, and what else is needed. Without a Trainer
    it is an ordinary nn.Module: `log` does nothing and every hook is a plain method.
    """

    automatic_optimization: bool = True
    """False: `training_step` calls `manual_backward` and the optimisers itself."""

    example_input_array: Any = None
    """A batch for the model's graph and summary."""

    strict_loading: bool = True
    """Whether missing and unexpected weights of a checkpoint are refused."""

    _trainer: Trainer | None = None
    _results: Results | None = None

    # --- steps

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One batch → loss.

        Returns a 0-dim loss Tensor; or a dict with "loss" (a mean) and, when the mean is over
        something else than the batch's samples, "num_items"; or "loss_sum" and "num_items"; or with
        named optimisers "losses", one for each name; or None to leave the batch out.
        """
        raise ConfigError(
            f"{type(self).__name__} has no training_step",
            mend="define training_step(self, batch, batch_idx) and return the loss",
        )

    def validation_step(self, *args: Any, **kwargs: Any) -> Any: ...
    def test_step(self, *args: Any, **kwargs: Any) -> Any: ...

    def predict_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """One batch → predictions; `self(batch)` unless overridden."""
        return self(batch)

    def configure_optimizers(self) -> Any:
        """An optimiser, several, (optimisers, schedulers), or dicts; see docs/optimizers.md."""
        return None

    def configure_model(self) -> None: ...
    def configure_callbacks(self) -> Any:
        return []

    # --- hooks; those of the data are in DataHooks

    def on_fit_start(self) -> None: ...
    def on_fit_end(self) -> None: ...
    def on_train_start(self) -> None: ...
    def on_train_end(self) -> None: ...
    def on_train_epoch_start(self) -> None: ...
    def on_train_epoch_end(self) -> None: ...
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None: ...
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None: ...
    def on_before_backward(self, loss: Tensor) -> None: ...
    def on_after_backward(self) -> None: ...
    def on_before_optimizer_step(self, optimizer: Optimizer) -> None: ...
    def on_before_zero_grad(self, optimizer: Optimizer) -> None: ...
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None: ...
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None: ...

    def on_validation_model_eval(self) -> None:
        self.eval()

    def on_validation_start(self) -> None: ...
    def on_validation_end(self) -> None: ...
    def on_validation_epoch_start(self) -> None: ...
    def on_validation_epoch_end(self) -> None: ...
    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None: ...
    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None: ...

    on_test_model_eval = on_predict_model_eval = on_validation_model_eval
    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end
    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end
    on_test_batch_start = on_predict_batch_start = on_validation_batch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    # --- stages of the optimisation that may be replaced

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward(*args, **kwargs)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Closure = None
    ) -> None:
        """Overridden, it receives the closure that runs the step, zero_grad and backward."""
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        optimizer.zero_grad()

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        scheduler.step() if metric is None else scheduler.step(metric)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of one optimiser by norm (the default) or by value, in place."""
        if gradient_clip_val:
            clip(optimizer, gradient_clip_val, gradient_clip_algorithm or "norm")

    # --- for manual optimisation

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimiser, or a list when there are several. Their `step` knows the precision."""
        handles = self.trainer.optimizer_handles if use_pl_optimizer else self.trainer.optimizers
        return handles[0] if len(handles) == 1 else handles

    def lr_schedulers(self) -> Any:
        """None, the scheduler, or a list when there are several."""
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return schedulers if len(schedulers) > 1 else next(iter(schedulers), None)

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """`loss.backward()` with the precision's scaling and the backward hooks."""
        self.trainer.manual_backward(loss, *args, **kwargs)

    def toggle_optimizer(self, optimizer: Any) -> None:
        """Let only the parameters of `optimizer` require gradients until `untoggle_optimizer`."""
        mine = set(map(id, parameters(optimizer)))
        everyone = [p for other in self.trainer.optimizers for p in parameters(other)]
        others = [p for p in everyone if id(p) not in mine and p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        self.__dict__["_toggled"] = others

    @contextmanager
    def toggled_optimizer(self, optimizer: Any) -> Iterator[None]:
        """`with self.toggled_optimizer(optimizer):` its parameters alone require gradients."""
        self.toggle_optimizer(optimizer)
        try:
            yield
        finally:
            self.untoggle_optimizer(optimizer)

    def untoggle_optimizer(self, optimizer: Any) -> None:
        for parameter in self.__dict__.pop("_toggled", []):
            parameter.requires_grad_(True)

    # --- log

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any | None = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log a number, a one-element Tensor or a torchmetrics Metric.

        Nothing is read back to the host here. `on_step` keeps the newest value, sent to the loggers
        every `log_every_n_steps`; `on_epoch` the mean over the epoch, weighted by the number of
        samples of each batch (`batch_size` wins). In `training_step` the default is on_step, in the
        other steps and hooks on_epoch. With both, the names end in `_step` and `_epoch`.

        Without a Trainer it does nothing; outside the hooks of a loop it raises ConfigError.
        """
        if self._results is not None:
            how = (prog_bar, logger, on_step, on_epoch, reduce_fx)
            self._results.log(name, value, how, add_dataloader_idx, batch_size)
        elif self._trainer is not None:
            raise ConfigError(
                f"log({name!r}) was called outside the hooks of a loop",
                where=type(self).__name__,
                allowed="steps, and hooks from on_train_start to on_train_end or of an evaluation",
                mend="use trainer.logger.log_metrics for anything else",
            )

    def log_dict(self, dictionary: Mapping[str, Any], **kwargs: Any) -> None:
        """`log` every item of a mapping."""
        for name, value in dictionary.items():
            self.log(name, value, **kwargs)

    # --- what the trainer knows

    @property
    def trainer(self) -> Trainer:
        if self._trainer is None:
            raise ConfigError(f"{type(self).__name__} is not attached to a Trainer")
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        self.__dict__["_trainer"] = trainer

    @property
    def current_epoch(self) -> int:
        return 0 if self._trainer is None else self._trainer.current_epoch

    @property
    def global_step(self) -> int:
        return 0 if self._trainer is None else self._trainer.global_step

    @property
    def global_rank(self) -> int:
        return 0 if self._trainer is None else self._trainer.strategy.rank

    @property
    def local_rank(self) -> int:
        return 0 if self._trainer is None else self._trainer.strategy.local_rank

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Tensors of all processes, stacked: [*] → [world, *]; in nested batches as well.

        With `sync_grads` the own part keeps its gradient. All processes have to call it.
        """
        strategy = self.trainer.strategy
        gather = strategy.gather

        def gathered(tensor: Tensor) -> Tensor:
            parts = [
                part.to(tensor.device) for part in gather(tensor.detach().cpu(), "all_gather()")
            ]
            if sync_grads:
                parts[strategy.rank] = tensor
            return torch.stack(parts) if strategy.world > 1 else tensor

        return apply(data, gathered)

    @property
    def logger(self) -> Any:
        return None if self._trainer is None else self._trainer.logger

    @property
    def loggers(self) -> list[Any]:
        return [] if self._trainer is None else self._trainer.loggers

    @property
    def device(self) -> torch.device:
        """Where the first parameter or buffer lies; the CPU when there is none."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the first floating point parameter or buffer."""
        tensors = chain(self.parameters(), self.buffers())
        found = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
        return next(found, torch.get_default_dtype())

    def freeze(self) -> None:
        """No parameter requires gradients, and the module is in eval mode."""
        self.requires_grad_(False).eval()

    def unfreeze(self) -> None:
        self.requires_grad_(True).train()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """`print` on the first process only."""
        if self._trainer is None or self._trainer.is_global_zero:
            print(*args, **kwargs)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        map_location: Any | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """A new module with the hyper-parameters and weights of a checkpoint.

        Args:
            checkpoint_path: a checkpoint directory.
            map_location: where the weights go; the CPU unless given.
            strict: refuse missing and unexpected weights; None is the module's `strict_loading`.
            kwargs: arguments of `__init__` that replace the stored ones or were not stored.

        Raises:
            CheckpointError: the checkpoint is damaged or does not fit the module.
            ConfigError: arguments of `__init__` are neither stored nor given; they are named.
        """
        state = read_state(checkpoint_path)
        arguments = {**state.get("hyper_parameters", {}), **kwargs}
        module = cls(**_accepted(cls, arguments, given=kwargs))
        module.on_load_checkpoint(state)
        strict = module.strict_loading if strict is None else strict
        weights = (w for w in state["state_dict"].values() if isinstance(w, Tensor))
        found = {w.dtype for w in weights if w.is_floating_point()}
        if len(found) == 1:  # a float64 weight must not pass through a float32 parameter
            module.to(found.pop())
        load_weights(module, state["state_dict"], where=str(checkpoint_path), strict=strict)
        return module.to(map_location) if map_location is not None else module

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a worker process must not drag the trainer along.
        return {k: v for k, v in self.__dict__.items() if k not in ("_trainer", "_results")}


def _accepted(cls: type, arguments: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments that `cls.__init__` takes; names what it needs and did not get."""
    taken = inspect.signature(cls).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [name for name, p in taken.items() if p.kind in named and p.default is p.empty]
    if missing := [name for name in needed if name not in arguments]:
        raise ConfigError(
            f"{cls.__name__} needs arguments that the checkpoint lacks: {', '.join(missing)}",
            mend=f"load_from_checkpoint(path, {', '.join(f'{n}=…' for n in missing)})",
        )
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return arguments
    return {name: v for name, v in arguments.items() if name in taken or name in given}
