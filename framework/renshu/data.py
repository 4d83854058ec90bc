"""DataModule, and moving batches to a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from renshu.errors import ConfigError
from renshu.hparams import HyperParameters

if TYPE_CHECKING:
    from pathlib import Path

    from renshu.trainer import Trainer


_KEY = 'a key of Lightning\'s files; `checkpoint["hyper_parameters"]`'
GONE = {
    "CHECKPOINT_HYPER_PARAMS_KEY": _KEY,
    "CHECKPOINT_HYPER_PARAMS_NAME": _KEY,
    "CHECKPOINT_HYPER_PARAMS_TYPE": _KEY,
    "allow_zero_length_dataloader_with_multiple_devices": "`limit_val_batches=0` leaves one out",
    "configure_sharded_model": "`configure_model`",
    "fabric": "there is no Fabric; `Trainer`",
    "on_gpu": "`module.device` says it",
    "on_test_model_train": "each part goes back to its mode; `on_test_end` for more",
    "on_validation_model_train": "each part goes back to its mode; `on_validation_end` for more",
    "remove_ignored_hparams": "`save_hyperparameters(ignore=[...])`",
    "to_tensorrt": "`torch.export` and the vendor's converter",
    "to_torchscript": "TorchScript is deprecated in torch; `torch.export`",
}
"""Attributes of Lightning's modules that are not here, and what to use instead."""


class DataHooks(HyperParameters):
    """What may be said about the data, in a DataModule or in the Module itself."""

    def __getattr__(self, name: str) -> Any:
        if name in GONE:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; {GONE[name]}")
        inherited = getattr(super(), "__getattr__", None)
        if inherited is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return inherited(name)

    def prepare_data(self) -> None:
        """Download and convert; called once, on one process."""

    def setup(self, stage: str) -> None:
        """Build the data sets of `stage`: fit, validate, test or predict."""

    def teardown(self, stage: str) -> None: ...
    def train_dataloader(self) -> Any: ...
    def val_dataloader(self) -> Any: ...
    def test_dataloader(self) -> Any: ...
    def predict_dataloader(self) -> Any: ...

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augmentation of whole batches belongs here: they are on the device."""
        return batch

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return move(batch, device)


class DataModule(DataHooks):
    """Everything about the data: preparing, splitting, loaders for every stage."""

    trainer: Trainer | None = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

    def on_exception(self, exception: BaseException) -> None: ...

    @classmethod
    def from_datasets(
        cls,
        train_dataset: Any = None,
        val_dataset: Any = None,
        test_dataset: Any = None,
        predict_dataset: Any = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> Self:
        """A data module over data sets (or lists of them); training is shuffled.

        `kwargs` are further arguments of `__init__`.
        """

        def loaders(dataset: Any, shuffle: bool) -> Callable[[], Any]:
            def make(one: Any) -> DataLoader[Any]:
                shuffled = shuffle and not isinstance(one, IterableDataset)
                return DataLoader(one, batch_size, shuffle=shuffled, num_workers=num_workers)

            several = isinstance(dataset, (list, tuple))
            return lambda: [make(one) for one in dataset] if several else make(dataset)

        module, given = cls(**kwargs), (train_dataset, val_dataset, test_dataset, predict_dataset)
        for stage, dataset in zip(("train", "val", "test", "predict"), given, strict=True):
            if dataset is not None:
                setattr(module, f"{stage}_dataloader", loaders(dataset, stage == "train"))
        return module

    def fingerprint(self) -> dict[str, Any] | None:
        """What identifies the data, for `environment.json`; None when there is nothing to say."""

    def follow(self, run_dir: Path) -> None:
        """Take over what was decided for a run that is measured, exported or continued.

        Called before its module is made, with the run's folder.
        """


def as_list(value: Any) -> list[Any]:
    """None, one thing or several → a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def move(batch: Any, device: torch.device) -> Any:
    """A batch, however nested, on `device`: tuples, lists, dicts, dataclasses, objects with .to."""
    # Copies from pinned memory need not wait; to the CPU they must.
    wait = device.type == "cpu"
    return apply(batch, lambda item: item.to(device, non_blocking=not wait), lambda o: o.to(device))


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """A batch with its floating point tensors in `dtype`."""
    return apply(batch, lambda item: item.to(dtype) if item.is_floating_point() else item)


def apply(
    batch: Any, tensor: Callable[[Tensor], Any], other: Callable[[Any], Any] | None = None
) -> Any:
    """The same nesting with `tensor` applied to every Tensor and `other` to objects with .to."""

    def inner(item: Any) -> Any:
        return apply(item, tensor, other)

    if isinstance(batch, Tensor):
        return tensor(batch)
    if isinstance(batch, Mapping):
        items = {key: inner(value) for key, value in batch.items()}
        return items if type(batch) is dict else type(batch)(items)  # type: ignore[call-arg]
    if isinstance(batch, (list, tuple)):
        items = map(inner, batch)
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        given = [field.name for field in dataclasses.fields(batch) if field.init]
        return dataclasses.replace(batch, **{name: inner(getattr(batch, name)) for name in given})
    if other is not None and hasattr(batch, "to") and not isinstance(batch, type):
        return other(batch)
    return batch


def batch_size(batch: Any) -> int:
    """The common leading dimension of the tensors in a batch; ConfigError if they disagree."""
    sizes: dict[int, str] = {}
    _leading(batch, "batch", sizes)
    if len(sizes) != 1:
        found = ", ".join(f"{path}: {size}" for size, path in sizes.items()) or "no tensor"
        raise ConfigError(
            f"the batch's size is unclear ({found})",
            allowed="tensors with one common leading dimension",
            mend="self.log(..., batch_size=n)",
        )
    return next(iter(sizes))


def _leading(item: Any, path: str, sizes: dict[int, str]) -> None:
    if isinstance(item, Tensor):
        if item.ndim:
            sizes.setdefault(item.shape[0], path)
    elif isinstance(item, (list, tuple)):
        for number, value in enumerate(item):
            _leading(value, f"{path}[{number}]", sizes)
    elif isinstance(item, Mapping):
        for key, value in item.items():
            _leading(value, f"{path}[{key!r}]", sizes)
    elif dataclasses.is_dataclass(item):
        for field in dataclasses.fields(item):
            _leading(getattr(item, field.name), f"{path}.{field.name}", sizes)
