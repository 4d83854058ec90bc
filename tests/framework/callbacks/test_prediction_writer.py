"""BasePredictionWriter: batches as they come, and all of them at the end."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from renshu.callbacks import BasePredictionWriter
from renshu.errors import ConfigError
from small_models import Classifier, digits, loader, trainer


class Writer(BasePredictionWriter):
    """Writes each batch to a file; keeps what came at the end."""

    def __init__(self, write_interval: Any, folder: Path = Path()) -> None:
        super().__init__(write_interval)
        self.folder, self.end = folder, None

    def write_on_batch_end(
        self,
        trainer: Any,
        module: Any,
        prediction: Tensor,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        found = {"labels": prediction.tolist(), "indices": list(batch_indices)}
        torch.save(found, self.folder / f"{dataloader_idx}-{batch_idx}.pt")

    def write_on_epoch_end(
        self, trainer: Any, module: Any, predictions: Any, batch_indices: Any
    ) -> None:
        self.end = predictions, batch_indices


class Predicts(Classifier):
    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch[0]).argmax(1)


def expected(module: Predicts, indices: Any) -> list[int]:
    return module(digits(96)[0][list(indices)]).argmax(1).tolist()


# capabilities E C1
def test_batches_are_written_as_they_come_with_their_indices(tmp_path: Path) -> None:
    module, run = Predicts(), trainer(callbacks=[Writer("batch", tmp_path)])
    data = [loader(24, shuffle=False), loader(40, batch_size=16)]
    run.predict(module, data, return_predictions=False)
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    seen: list[list[int]] = [[], []]
    for path in sorted(tmp_path.iterdir()):
        found = torch.load(path, weights_only=True)
        assert found["labels"] == expected(module, found["indices"])
        seen[int(path.stem[0])] += found["indices"]
    assert seen[0] == list(range(24))
    assert sorted(seen[1]) == list(range(40)) != seen[1]  # that loader shuffles


def test_everything_is_written_at_the_end() -> None:
    module, writer = Predicts(), Writer("epoch")
    run = trainer(callbacks=[writer])
    returned: Any = run.predict(module, loader(24, shuffle=False))
    predictions, indices = writer.end or ([], [])
    assert [p.tolist() for p in predictions] == [p.tolist() for p in returned]
    assert [list(i) for i in indices[0]] == [list(range(n, n + 8)) for n in (0, 8, 16)]
    run.predict(module, [loader(8), loader(16)], return_predictions=False)
    predictions, indices = writer.end or ([], [])
    assert [len(part) for part in predictions] == [len(part) for part in indices] == [1, 2]


def test_indices_that_no_loader_tells_are_none() -> None:
    module, writer = Predicts(), Writer("epoch")
    trainer(callbacks=[writer]).predict(module, [list(batch) for batch in loader(16)])
    assert writer.end is not None
    assert writer.end[1] == [[None, None]]


def test_memory_does_not_grow_with_the_data() -> None:
    """Of the predictions of 40 batches no more than two are alive at any time."""
    alive: list[Any] = []
    most = 0

    class Counts(Writer):
        def write_on_batch_end(self, trainer: Any, module: Any, prediction: Any, *_: Any) -> None:
            nonlocal most
            alive.append(weakref.ref(prediction))
            most = max(most, sum(reference() is not None for reference in alive))

    data = DataLoader(digits(80)[0], batch_size=2)  # type: ignore[arg-type]

    class Plain(Predicts):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch)

    run = trainer(callbacks=[Counts("batch")])
    run.predict(Plain(), data, return_predictions=False)
    assert len(alive) == 40
    assert most <= 2


def test_a_writer_without_the_method_is_refused_before_the_first_batch() -> None:
    class OnlyBatches(BasePredictionWriter):
        def write_on_batch_end(self, *_: Any) -> None:
            raise AssertionError

    run = trainer(callbacks=[OnlyBatches("batch_and_epoch")])
    with pytest.raises(ConfigError, match="write_on_epoch_end"):
        run.predict(Predicts(), loader(8))
    with pytest.raises(ConfigError, match="batch_and_epoch"):
        BasePredictionWriter("step")  # type: ignore[arg-type]
