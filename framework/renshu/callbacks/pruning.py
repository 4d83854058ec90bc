"""Pruning of weights while training, with torch.nn.utils.prune."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, unknown
from renshu.messages import say

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

Pairs = Sequence[tuple[nn.Module, str]]
"""Modules, each with the name of one of its own parameters."""

_METHODS: dict[str, Any] = {
    "l1_unstructured": prune.L1Unstructured,
    "ln_structured": prune.LnStructured,
    "random_structured": prune.RandomStructured,
    "random_unstructured": prune.RandomUnstructured,
}


class ModelPruning(Callback):
    """Sets a share of the weights to zero at the end of each epoch, of those that still are none.

    The weights that decide are the current ones. Checkpoints hold masks, unmasked weights and the
    initial weights beside the pruned ones, so that a resumed run prunes the same.

    Args:
        pruning_fn: l1_unstructured, ln_structured, random_structured, random_unstructured, or a
            class derived from torch's BasePruningMethod.
        parameters_to_prune: pairs of module and parameter's name; empty takes all.
        parameter_names: which parameters that is: "weight", "bias" or both.
        use_global_unstructured: rank all parameters together, not each by itself.
        amount: share (float) or number (int) that is pruned at a time, or a function of the epoch.
        apply_pruning: whether to prune, or a function of the epoch.
        make_pruning_permanent: save and end with plain weights, without masks.
        use_lottery_ticket_hypothesis: afterwards put the remaining weights back to where they were
            before training (Frankle & Carbin 2019); or a function of the epoch.
        resample_parameters: put them to newly drawn values instead.
        pruning_dim: dimension along which structured methods prune.
        pruning_norm: norm that ln_structured ranks by.
        verbose: 1 says how much is pruned, 2 of each parameter.
        prune_on_train_epoch_end: False prunes at the end of validations instead.

    Raises:
        ConfigError: arguments that are unknown, missing or exclude each other.
    """

    PARAMETER_NAMES = ("weight", "bias")

    def __init__(
        self,
        pruning_fn: Any,
        parameters_to_prune: Pairs = (),
        parameter_names: list[str] | None = None,
        use_global_unstructured: bool = True,
        amount: float | Callable[[int], float] = 0.5,
        apply_pruning: bool | Callable[[int], bool] = True,
        make_pruning_permanent: bool = True,
        use_lottery_ticket_hypothesis: bool | Callable[[int], bool] = True,
        resample_parameters: bool = False,
        pruning_dim: int | None = None,
        pruning_norm: int | None = None,
        verbose: int = 0,
        prune_on_train_epoch_end: bool = True,
    ) -> None:
        if isinstance(pruning_fn, str):
            if pruning_fn not in _METHODS:
                raise unknown("pruning_fn", pruning_fn, _METHODS, "ModelPruning")
            pruning_fn = _METHODS[pruning_fn]
        for name in parameter_names or ():
            if name not in self.PARAMETER_NAMES:
                raise unknown("parameter_names", name, self.PARAMETER_NAMES, "ModelPruning")
        if use_global_unstructured and pruning_fn.PRUNING_TYPE != "unstructured":
            said = f"use_global_unstructured cannot be used with {pruning_fn.__name__}"
            raise ConfigError(said, mend="use_global_unstructured=False")
        takes = inspect.signature(pruning_fn).parameters
        self._given = {"dim": pruning_dim, "n": pruning_norm}
        self._given = {key: value for key, value in self._given.items() if key in takes}
        if None in self._given.values():
            mend = "pruning_dim, and with ln_structured pruning_norm"
            raise ConfigError(f"{pruning_fn.__name__} needs to know more", mend=mend)
        self._takes_amount = "amount" in takes
        self.pruning_fn, self.amount = pruning_fn, amount
        self._parameters, self._global = parameters_to_prune, use_global_unstructured
        self._names = parameter_names or self.PARAMETER_NAMES
        self._apply, self._permanent = apply_pruning, make_pruning_permanent
        self._lottery, self._resample = use_lottery_ticket_hypothesis, resample_parameters
        self._verbose, self._after_epochs = verbose, prune_on_train_epoch_end
        self._fitting = False

    # --- what

    def filter_parameters_to_prune(self, parameters_to_prune: Pairs = ()) -> Pairs:
        """May be overridden to choose among the pairs."""
        return parameters_to_prune

    @staticmethod
    def sanitize_parameters_to_prune(
        module: nn.Module, parameters_to_prune: Pairs = (), parameter_names: Iterable[str] = ()
    ) -> Pairs:
        """The given pairs, or all there are; ConfigError for one that is not in the module."""
        names = parameter_names or ModelPruning.PARAMETER_NAMES
        found = [
            (m, n) for n in names for m in module.modules() if m._parameters.get(n) is not None
        ]
        parts = set(module.modules())
        for part, name in parameters_to_prune:
            if part not in parts or part._parameters.get(name) is None:
                where = f"{type(part).__name__}.{name}"
                raise ConfigError("there is no such parameter to prune", where=where)
        if not found:
            raise ConfigError("there is nothing to prune", where=type(module).__name__)
        return parameters_to_prune or found

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        pairs = self.sanitize_parameters_to_prune(module, self._parameters, self._names)
        names = {part: f"{name}." * bool(name) for name, part in module.named_modules()}
        pairs = self.filter_parameters_to_prune(pairs)
        # By the parameter's name in the whole module.
        self._pairs = {f"{names[part]}{name}": (part, name) for part, name in pairs}
        self._masks = dict[str, Tensor]()
        self._initial = dict[nn.Module, Any]()
        if self._lottery:
            parts = dict.fromkeys(part for part, _ in pairs)
            self._initial = {part: copy.deepcopy(part) for part in parts}

    # --- pruning

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._after_epochs:
            self._run(trainer.current_epoch)

    def on_validation_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._fitting and not self._after_epochs and not trainer.sanity_checking:
            self._run(trainer.current_epoch)

    def _run(self, epoch: int) -> None:
        prunes, amount, resets = (
            choice(epoch) if callable(choice) else choice
            for choice in (self._apply, self.amount, self._lottery)
        )
        if prunes and amount:
            self.apply_pruning(amount)
            if resets:
                self.apply_lottery_ticket_hypothesis()

    @torch.inference_mode(False)  # masks made in a validation are needed in training
    def apply_pruning(self, amount: float) -> None:
        """Prune a share or number of what is left."""
        pairs = [*self._pairs.values()]
        for part, name in self._pruned().values():
            # torch renews it in a forward pass only, which the last step has outdated.
            setattr(part, name, getattr(part, f"{name}_orig") * getattr(part, f"{name}_mask"))
        given = self._given | ({"amount": amount} if self._takes_amount else {})
        if self._global:
            prune.global_unstructured(pairs, self.pruning_fn, **given)
        else:
            for part, name in pairs:
                self.pruning_fn.apply(part, name, **given)
        if self._verbose:
            self._say()

    @torch.no_grad()
    def apply_lottery_ticket_hypothesis(self) -> None:
        """Put the weights back to their initial values, or to newly drawn ones."""
        for part, initial in self._initial.items():
            if self._resample and hasattr(initial, "reset_parameters"):
                initial = copy.deepcopy(initial)
                initial.reset_parameters()  # type: ignore[operator]
            for owner, name in self._pairs.values():
                if owner is part:
                    getattr(part, f"{name}_orig").copy_(getattr(initial, name))

    def make_pruning_permanent(self, module: nn.Module) -> None:
        """Replace masked parameters by plain ones."""
        for part in module.modules():
            for hook in list(part._forward_pre_hooks.values()):
                if isinstance(hook, prune.BasePruningMethod):
                    prune.remove(part, hook._tensor_name)

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        if self._permanent:
            self.make_pruning_permanent(module)

    def _pruned(self) -> dict[str, tuple[nn.Module, str]]:
        """The pairs that have a mask."""
        return {k: pair for k, pair in self._pairs.items() if hasattr(pair[0], f"{pair[1]}_mask")}

    def _say(self) -> None:
        masks = {key: getattr(part, f"{name}_mask") for key, (part, name) in self._pruned().items()}
        lines = {key: (int((mask == 0).sum()), mask.numel()) for key, mask in masks.items()}
        zeros, total = map(sum, zip(*lines.values(), strict=True))
        lines = {"all parameters": (zeros, total)} | (lines if self._verbose > 1 else {})
        for key, (zeros, total) in lines.items():
            say(f"pruned {key}: {zeros} of {total} ({zeros / total:.1%})")

    # --- saving and resuming

    def state_dict(self) -> dict[str, Any]:
        pruned = self._pruned() if self._fitting else {}
        initial = self._initial if self._fitting else {}
        return {
            "masks": {k: getattr(part, f"{name}_mask") for k, (part, name) in pruned.items()},
            "weights": {k: getattr(p, f"{name}_orig").detach() for k, (p, name) in pruned.items()},
            "initial": [part.state_dict() for part in initial.values()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._masks = state_dict["masks"]
        for part, saved in zip(self._initial.values(), state_dict["initial"], strict=True):
            part.load_state_dict(saved)

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        # Only now: the optimisers are made over the parameters as they were when the run began.
        for key, mask in self._masks.items():
            prune.custom_from_mask(*self._pairs[key], mask.to(trainer.strategy.device))

    def on_save_checkpoint(
        self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]
    ) -> None:
        weights = checkpoint["state_dict"]
        for key in self._pruned() if self._fitting and self._permanent else ():
            mask = weights.pop(f"{key}_mask")
            weights[key] = weights.pop(f"{key}_orig") * mask

    def on_load_checkpoint(
        self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint.get("callbacks", {}).get(self.state_key, {"weights": {}})
        weights, names = checkpoint["state_dict"], {}
        for key, unmasked in saved["weights"].items():
            names[f"{key}_orig"] = key
            for suffix in ("_orig", "_mask"):
                weights.pop(key + suffix, None)
            weights[key] = unmasked
        checkpoint["frozen"] = [names.get(name, name) for name in checkpoint.get("frozen", ())]
