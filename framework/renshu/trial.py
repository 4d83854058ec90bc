"""Trying something with a module in the middle of a fit or evaluation, and leaving no trace."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

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
    with _untouched(trainer, module):
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
            for feed in (plan.feed, *plan.val_feeds):
                if feed is not None:
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


def holders(plan: Plan, name: str) -> list[Any]:
    """Module, data module and their `hparams`, as far as they have something of this name."""
    owners = [owner for owner in (plan.module, plan.datamodule) if owner is not None]
    found: list[Any] = [owner for owner in owners if hasattr(owner, name)]
    return found + [owner.hparams for owner in owners if name in owner.hparams]


def assign(found: list[Any], name: str, value: Any) -> None:
    """Set an attribute, or an item, of each holder."""
    for holder in found:
        if isinstance(holder, dict):
            holder[name] = value
        else:
            setattr(holder, name, value)


@contextmanager
def _untouched(trainer: Trainer, module: Module) -> Iterator[None]:
    """Module, Trainer and generators are afterwards as before, whatever happens inside.

    Of the module: parameters, buffers and other tensors, gradients, attributes, and what the dicts,
    lists and sets among them hold. Copies of tensors are kept in the CPU's memory.
    """
    trainer_before, random = vars(trainer).copy(), seeds.random_state()
    private = seeds.private_states(module)
    parts = [(part, vars(part).copy()) for part in module.modules()]
    values = {id(value): value for _, found in parts for value in found.values()}
    holding = [v for v in values.values() if isinstance(v, (dict, list, set, deque))]
    contents = [dict(held) if isinstance(held, dict) else list(held) for held in holding]
    for held in contents:
        values |= {id(v): v for v in (held.values() if isinstance(held, dict) else held)}
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
        seeds.set_private_states(module, private)
        seeds.set_random_state(random)
