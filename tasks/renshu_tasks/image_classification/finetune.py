"""What learns, when and how fast: linear probe, staged unfreezing, lower rates for lower stages.

Everything is a pure function of options and epoch. All parameters are in the optimiser from the
start and only `requires_grad` is switched, so a run resumed across a change of stage is exact.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from renshu_tasks.image_classification import models
from renshu_tasks.image_classification.options import TrainingOptions


def learning_stages(options: TrainingOptions, epoch: int, stages: int) -> int:
    """How many stages, counted from the head downwards, learn in `epoch` (from 0)."""
    if options.tune == "head":
        return 1
    if options.tune == "staged":
        return min(stages, 1 + epoch // options.unfreeze_every)
    return stages


def apply(model: nn.Module, options: TrainingOptions, epoch: int) -> list[nn.Module]:
    """Switch `requires_grad` for `epoch`; returns the frozen modules, see `keep_still`."""
    stages = models.stages(model)
    names = list(stages)
    first = len(names) - learning_stages(options, epoch, len(names))
    parameters = dict(model.named_parameters())
    for index, members in enumerate(stages.values()):
        for name in members:
            parameters[name].requires_grad_(index >= first)
    return models.stage_modules(model, names[:first])


def keep_still(frozen: list[nn.Module]) -> None:
    """Batch norms of frozen modules stay in evaluation: their running statistics do not move."""
    for module in frozen:
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.eval()


def parameter_groups(model: nn.Module, options: TrainingOptions) -> list[dict[str, Any]]:
    """Optimiser groups: one a stage and kind, biases and norms (one-dimensional) without decay.

    The rate of a stage is `learning_rate` × `layer_decay` to the number of stages above it.
    """
    assert options.learning_rate is not None, "the module fills it in"
    parameters = dict(model.named_parameters())
    stages = models.stages(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for depth, members in enumerate(reversed(stages.values())):
        rate = options.learning_rate * options.layer_decay**depth
        for name in members:
            parameter = parameters[name]
            decay = options.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
