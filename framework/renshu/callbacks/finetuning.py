"""Training parts of a model later than the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError
from renshu.messages import say
from renshu.optim import parameters

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

Modules = nn.Module | Iterable[Any]
"""A module, or modules nested in any iterables."""


class BaseFinetuning(Callback):
    """Override `freeze_before_training` and `finetune_function`.

    `configure_optimizers` should take the parameters that require gradients; those unfrozen later
    join as new parameter groups. A resumed run has these groups before the optimiser's state.
    """

    def __init__(self) -> None:
        self._module: Module | None = None
        self._saved: dict[str, Any] = {}

    def freeze_before_training(self, module: Module) -> None:
        """Freeze what shall not train yet; called before the optimisers are made."""
        raise NotImplementedError(f"{type(self).__name__} has no freeze_before_training")

    def finetune_function(self, module: Module, epoch: int, optimizer: Optimizer) -> None:
        """Unfreeze what is due; called for each optimiser when an epoch (from 0) starts."""
        raise NotImplementedError(f"{type(self).__name__} has no finetune_function")

    # --- tools

    @staticmethod
    def flatten_modules(modules: Modules) -> list[nn.Module]:
        """All modules inside that have parameters of their own or no children."""
        if isinstance(modules, nn.ModuleDict):
            modules = modules.values()
        if isinstance(modules, Iterable):
            found = [part for item in modules for part in BaseFinetuning.flatten_modules(item)]
        else:
            found = list(modules.modules())
        return [part for part in found if part._parameters or not list(part.children())]

    @staticmethod
    def filter_params(
        modules: Modules, train_bn: bool = True, requires_grad: bool = True
    ) -> Iterator[nn.Parameter]:
        """The parameters with that `requires_grad`; without `train_bn` none of batch norms."""
        for part in BaseFinetuning.flatten_modules(modules):
            if train_bn or not isinstance(part, _BatchNorm):
                for parameter in part.parameters(recurse=False):
                    if parameter.requires_grad == requires_grad:
                        yield parameter

    @staticmethod
    def make_trainable(modules: Modules) -> None:
        """Let all parameters require gradients, and batch norms follow their statistics."""
        BaseFinetuning._set(BaseFinetuning.flatten_modules(modules), True)

    @staticmethod
    def freeze_module(module: nn.Module) -> None:
        """Freeze a module's own parameters, and the statistics if it is a batch norm."""
        BaseFinetuning._set([module], False)

    @staticmethod
    def freeze(modules: Modules, train_bn: bool = True) -> None:
        """Freeze all parameters; with `train_bn` batch norms stay trainable."""
        for part in BaseFinetuning.flatten_modules(modules):
            BaseFinetuning._set([part], train_bn and isinstance(part, _BatchNorm))

    @staticmethod
    def _set(parts: list[nn.Module], trains: bool) -> None:
        for part in parts:
            if isinstance(part, _BatchNorm):
                part.track_running_stats = trains
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad = trains

    @staticmethod
    def filter_on_optimizer(optimizer: Optimizer, params: Iterable[Tensor]) -> list[Tensor]:
        """The parameters that the optimiser does not have; says so if it has some."""
        held, given = set(map(id, parameters(optimizer))), list(params)
        found = [parameter for parameter in given if id(parameter) not in held]
        if len(found) < len(given):
            count = len(given) - len(found)
            say(f"{count} unfrozen parameters stay in the group they are in; to train them as")
            say("the new one, give the optimiser only parameters with requires_grad")
        return found

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Modules,
        optimizer: Optimizer,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
    ) -> None:
        """Unfreeze modules and give their parameters to the optimiser as a new group.

        Args:
            lr: the group's rate; None is that of the first group divided by `initial_denom_lr`.
            train_bn: whether the parameters of batch norms are among them.
        """
        BaseFinetuning.make_trainable(modules)
        rate = optimizer.param_groups[0]["lr"] / initial_denom_lr if lr is None else float(lr)
        unfrozen = BaseFinetuning.filter_params(modules, train_bn)
        if params := BaseFinetuning.filter_on_optimizer(optimizer, unfrozen):
            optimizer.add_param_group({"params": params, "lr": rate})

    # --- when

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        if stage == "fit":
            self._module, self._saved, self._epoch = module, {}, -1
            self.freeze_before_training(module)
            self._frozen = {n for n, p in module.named_parameters() if not p.requires_grad}

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        if trainer.current_epoch == self._epoch:
            return  # a run saved in the epoch's first batch starts it again
        self._epoch = trainer.current_epoch
        before = [p.requires_grad for p in module.parameters()]
        for optimizer in trainer.optimizers:
            self.finetune_function(module, trainer.current_epoch, optimizer)
        if before != [p.requires_grad for p in module.parameters()]:
            trainer.renew_step()

    # --- resuming

    def state_dict(self) -> dict[str, Any]:
        if self._module is None:
            return {}
        names = {id(p): name for name, p in self._module.named_parameters()}
        return {
            "epoch": self._epoch,
            "groups": [
                [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
                for optimizer in self._module.trainer.optimizers
            ],
            "trained": [n for n, p in self._module.named_parameters() if p.requires_grad],
            "tracked": [name for name, part in _norms(self._module) if part.track_running_stats],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved, self._epoch = state_dict, state_dict["epoch"]
        if self._module is not None:
            # The optimisers are made as they were when the run began.
            for name, parameter in self._module.named_parameters():
                parameter.requires_grad = name not in self._frozen

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        if not self._saved:
            return
        params = dict(module.named_parameters())
        for name, parameter in params.items():
            parameter.requires_grad = name in self._saved["trained"]
        for name, part in _norms(module):
            part.track_running_stats = name in self._saved["tracked"]
        # Their values come with the optimiser's state.
        for optimizer, groups in zip(trainer.optimizers, self._saved["groups"], strict=False):
            for names in groups[len(optimizer.param_groups) :]:
                optimizer.add_param_group({"params": [params[name] for name in names]})
        trainer.renew_step()


def _norms(module: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, _BatchNorm)]


def multiplicative(epoch: int) -> float:
    """Doubles the rate in every epoch."""
    return 2.0


@dataclass(eq=False)
class BackboneFinetuning(BaseFinetuning):
    """Trains `module.backbone` from an epoch on, with a rate that grows to that of the rest.

    Args:
        unfreeze_backbone_at_epoch: the epoch (from 0) with which the backbone starts to train.
        lambda_func: epoch → factor by which its rate grows when that epoch starts.
        backbone_initial_ratio_lr: its first rate as a share of the first group's.
        backbone_initial_lr: its first rate itself.
        should_align: its rate never exceeds that of the first group.
        initial_denom_lr: kept for Lightning's signature; the two rates above decide.
        train_bn: train the backbone's batch norms too when it is unfrozen.
        verbose: say both rates in each epoch.
        rounding: digits of the rates that are said.

    Raises:
        ConfigError: the module has no `backbone`.
    """

    unfreeze_backbone_at_epoch: int = 10
    lambda_func: Callable[[int], float] = multiplicative
    backbone_initial_ratio_lr: float = 10e-2
    backbone_initial_lr: float | None = None
    should_align: bool = True
    initial_denom_lr: float = 10.0
    train_bn: bool = True
    verbose: bool = False
    rounding: int = 12

    def __post_init__(self) -> None:
        super().__init__()
        self.previous_backbone_lr: Any = None

    def freeze_before_training(self, module: Module) -> None:
        if not isinstance(getattr(module, "backbone", None), nn.Module):
            said = f"BackboneFinetuning needs {type(module).__name__}.backbone"
            raise ConfigError(said, allowed="an nn.Module")
        self.freeze(module.backbone)

    def finetune_function(self, module: Module, epoch: int, optimizer: Optimizer) -> None:
        if epoch < self.unfreeze_backbone_at_epoch:
            return
        head = optimizer.param_groups[0]["lr"]
        if epoch == self.unfreeze_backbone_at_epoch:
            given = self.backbone_initial_lr
            rate = head * self.backbone_initial_ratio_lr if given is None else given
            backbone: Any = module.backbone
            self.unfreeze_and_add_param_group(backbone, optimizer, rate, train_bn=self.train_bn)
        else:
            rate = self.lambda_func(epoch + 1) * self.previous_backbone_lr
            rate = min(rate, head) if self.should_align else rate
            optimizer.param_groups[-1]["lr"] = rate
        self.previous_backbone_lr = rate
        if self.verbose:
            say(f"rates: {round(head, self.rounding)}, backbone {round(rate, self.rounding)}")

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"previous_backbone_lr": self.previous_backbone_lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.previous_backbone_lr = state_dict["previous_backbone_lr"]
        super().load_state_dict(state_dict)
