"""Trying something with a module in the middle of a fit or evaluation, and leaving no trace."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from renshu import loops, planning, seeds
from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError
from renshu.plan import Plan
from renshu.precision import Precision

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_BARE: dict[str, Any] = {
    "max_epochs": -1, "max_steps": -1, "min_epochs": None, "min_steps": None, "max_time": None,
    "stop_after": None, "on_nonfinite": "ignore", "reload_dataloaders_every_n_epochs": 0,
}  # fmt: skip


@contextmanager
def trial(trainer: Trainer, module: Module, *callbacks: Callback, **options: Any) -> Iterator[Plan]:
    """A plan of its own for the stage under way: nothing is logged or saved, no limit is set.

    `run` follows it. Afterwards module, Trainer and generators are bit-equal to what they were.

    Args:
        callbacks: the only ones that take part.
        options: changes of the Trainer's options.
    """
    outer = trainer._require_plan()
    if trainer.strategy.world > 1:
        said = "settings are searched on one process"
        raise ConfigError(said, allowed="devices=1, then several with what was found")
    with _untouched(trainer, module, [feed.loader for feed in outer.feeds]):
        trainer.options = replace(trainer.options, **_BARE | options)
        trainer.precision = Precision(trainer.options.precision, trainer.strategy.device)
        trainer.loggers, trainer.callbacks, trainer.logged_metrics = [], [*callbacks], {}
        trainer.forget()
        plan = Plan(trainer, module, outer.datamodule, trainer.callbacks, outer.stage)
        trainer._plan = plan
        # What `configure_optimizers` asks for: the steps of the fit itself.
        plan.max_epochs, plan.max_steps = outer.max_epochs, outer.max_steps
        try:
            yield plan
        finally:
            for feed in plan.feeds:
                feed.close()


def run(plan: Plan) -> None:
    """Train or evaluate with the loaders of a trial's plan."""
    if plan.stage == "train":
        planning.plan_optimisation(plan)
        plan.schedulers = []
        planning.plan_limits(plan)
        loops.fit(plan)
    elif plan.stage == "predict":
        deque(loops.predict(plan), maxlen=0)
    else:
        loops.evaluate(plan, plan.stage)


class Search(Callback):
    """Finds a setting when a fit starts, and trains with it. A resumed fit keeps what was found.

    Subclasses define `search`, which sets `found`, and `use`, which puts it in its place.
    """

    found: Any = None
    _restored = False

    def search(self, trainer: Trainer, module: Module) -> None: ...
    def use(self, plan: Plan) -> None: ...

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        if self._restored:
            self._restored = False
            self.use(trainer._require_plan())
        else:
            self.search(trainer, module)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.found is None else {"found": self.found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found, self._restored = state_dict["found"], True


class Setting:
    """A setting kept by module, data module and their `hparams`: by all that have it.

    The first of `names` that is there counts; ConfigError if none is.
    """

    def __init__(self, plan: Plan, *names: str):
        owners = [owner for owner in (plan.module, plan.datamodule) if owner is not None]
        places = [*owners, *(owner.hparams for owner in owners)]  # whose items are attributes too
        for self.name in names:
            self.holders = [place for place in places if hasattr(place, self.name)]
            if self.holders:
                return
        raise ConfigError(
            f"neither module nor data module has {' or '.join(names)}",
            mend="self.save_hyperparameters() keeps the arguments of __init__; or name another",
        )

    def set(self, value: Any) -> None:
        for holder in self.holders:
            setattr(holder, self.name, value)

    @contextmanager
    def tried(self, value: Any) -> Iterator[None]:
        """Inside, the setting has this value."""
        before = [getattr(holder, self.name) for holder in self.holders]
        self.set(value)
        try:
            yield
        finally:
            for holder, old in zip(self.holders, before, strict=True):
                setattr(holder, self.name, old)


@contextmanager
def _untouched(trainer: Trainer, module: Module, loaders: list[Any]) -> Iterator[None]:
    """Module, Trainer and generators are afterwards as before, whatever happens inside.

    Of the module: parameters, buffers and other tensors, gradients, attributes, and what the dicts,
    lists and sets among them hold. Of the loaders: generators, and what has a `state_dict`, such as
    samplers. Copies of tensors are kept in the CPU's memory.
    """
    trainer_before, random = vars(trainer).copy(), seeds.random_state()
    private = [(owner, seeds.private_states(owner)) for owner in (module, *loaders)]
    stateful = [
        (item, copy.deepcopy(item.state_dict()))
        for item in seeds.walk(*loaders)
        if hasattr(item, "load_state_dict") and not isinstance(item, (nn.Module, DataLoader))
    ]
    parts = [(part, vars(part).copy()) for part in module.modules()]
    values = {id(value): value for _, found in parts for value in found.values()}
    holding = [v for v in values.values() if isinstance(v, (dict, list, set, deque))]
    contents = [dict(held) if isinstance(held, dict) else list(held) for held in holding]
    for held in contents:  # parameters and buffers are there
        values |= {id(v): v for v in held.values()} if isinstance(held, dict) else {}
    tensors = [value for value in values.values() if isinstance(value, Tensor)]
    copies = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    leaves = [(tensor, tensor.requires_grad, tensor.grad) for tensor in tensors if tensor.is_leaf]
    for tensor, _, _ in leaves:
        tensor.grad = None
    try:
        yield
    finally:
        vars(trainer).clear()
        vars(trainer).update(trainer_before)
        for part, attributes in parts:
            vars(part).clear()
            vars(part).update(attributes)
        for held, content in zip(holding, contents, strict=True):
            held.clear()
            (held.extend if isinstance(held, (list, deque)) else held.update)(content)
        for tensor, saved in zip(tensors, copies, strict=True):
            tensor.data.copy_(saved)
        for tensor, requires_grad, gradient in leaves:
            tensor.requires_grad_(requires_grad).grad = gradient
        for item, state in stateful:
            item.load_state_dict(state)
        for owner, states in private:
            seeds.set_private_states(owner, states)
        seeds.set_random_state(random)
