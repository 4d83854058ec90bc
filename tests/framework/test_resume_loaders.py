"""Resuming reads the samples that were still to come, each once, whatever the loader."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from killing import (
    Net,
    Noisy,
    Validated,
    check_exact,
    fit,
    in_child,
    killed_and_resumed,
    lines,
    same,
)

# Three workers on a machine with two cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def loader(workers: int = 0, size: int = 23, batch: int = 4, **options: Any) -> DataLoader[Any]:
    options = {"shuffle": True, **options}
    return DataLoader(Noisy(size), batch_size=batch, num_workers=workers, **options)


# pains/trainer.md rows 1, 15: 6 batches an epoch, the last with 3 samples
@pytest.mark.parametrize("save", [1, 5, 6, 14, 17, 18])
def test_killed_in_any_epoch_the_run_ends_with_the_same_weights(save: int) -> None:
    check_exact(save, accumulate_grad_batches=3)


# pains/trainer.md row 1
@pytest.mark.parametrize("save", [2, 14])
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_with_workers_the_run_ends_with_the_weights_of_one_without(
    workers: int, save: int
) -> None:
    alone = in_child(lambda: fit(run="alone", accumulate_grad_batches=3))
    options = {"loader": partial(loader, workers), "accumulate_grad_batches": 3}
    assert same(alone, killed_and_resumed(save, **options))


# pains/trainer.md row 1
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("save", [3, 14, 18])
def test_validation_with_random_augmentation_changes_nothing(workers: int, save: int) -> None:
    def val() -> DataLoader[Any]:
        return loader(workers, 9, batch=2, shuffle=False)

    def end(trainer: Any, net: Any) -> Any:
        return net.state_dict(), float(trainer.callback_metrics["val_loss"])

    weights, _ = check_exact(save, module=Validated, val=val, result=end)
    without = in_child(lambda: fit(run="without"))
    assert same(without, weights)


# pains/trainer.md rows 1, 15
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("save", [2, 14])
def test_the_sample_ids_after_a_resume_are_those_still_to_come(
    workers: int, save: int, run_dir: Path
) -> None:
    in_child(lambda: fit(lambda: loader(workers), lambda: Net(run_dir / "whole"), run="whole"))
    killed_and_resumed(
        save, later=1, loader=lambda: loader(workers), module=lambda: Net(run_dir / "parts")
    )
    whole, parts = lines(run_dir / "whole"), lines(run_dir / "parts")
    assert len(whole) == 24
    assert parts[: save + 1] == whole[: save + 1]
    assert parts[save + 1 :] == whole[save:]
