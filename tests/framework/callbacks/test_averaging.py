"""Averages of the weights: what is averaged, used and refused. Their numbers: the tests beside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import tiny
from renshu import Callback
from renshu.callbacks import (
    EMA,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
    WeightAveraging,
)
from renshu.checkpoints import read_weights
from renshu.errors import ConfigError
from small_models import Classifier, equal, loader, trainer, weights


def fit(*callbacks: Any, module: Any = None, **options: Any) -> Any:
    module = module or Classifier()
    run = trainer(callbacks=list(callbacks), **{"max_epochs": 4} | options)
    run.fit(module, loader(48), loader(16))
    return module


class Starts(Callback):
    """Keeps the weights at the start of each epoch, and the rates of each."""

    def __init__(self) -> None:
        self.weights: list[list[torch.Tensor]] = []
        self.rates: list[float] = []

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.weights.append(weights(module))

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:  # type: ignore
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


# capabilities E
def test_swa_ends_with_the_mean_of_the_epochs_starts() -> None:
    starts = Starts()
    module = fit(StochasticWeightAveraging(0.05, 0.5), starts)
    means = [torch.stack(of_epochs).mean(0) for of_epochs in zip(*starts.weights[1:], strict=True)]
    for mean, parameter in zip(means, module.parameters(), strict=True):
        assert torch.allclose(mean, parameter, atol=1e-6)


def test_swa_anneals_the_rate_in_place_of_the_modules_scheduler() -> None:
    class Scheduled(Classifier):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    starts = Starts()
    swa = StochasticWeightAveraging(0.2, 3, annealing_epochs=2, annealing_strategy="linear")
    fit(swa, starts, module=Scheduled(0.1), max_epochs=5)
    before = 0.1 * 0.5**12
    assert starts.rates[:12] == pytest.approx([0.1 * 0.5**step for step in range(12)])
    assert starts.rates[12::6] == pytest.approx([before, (before + 0.2) / 2, 0.2])
    assert len(set(starts.rates[12:])) == 3


def test_swa_gives_batch_norms_the_statistics_of_the_mean() -> None:
    """As torch's update_bn finds them by the module's forward on the same batches."""
    module, data = tiny.Tiny(), tiny.loader(shuffle=False)
    before = module.net[1].momentum
    run = trainer(max_epochs=3, callbacks=[StochasticWeightAveraging(0.01, 2)])
    run.fit(module, data)
    other = tiny.Tiny()
    other.load_state_dict(module.state_dict())
    torch.optim.swa_utils.update_bn(data, other.net)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.allclose(getattr(module.net[1], name), getattr(other.net[1], name), atol=1e-6)
    assert module.net[1].momentum == before
    assert not torch.equal(module.net[1].running_mean, torch.zeros(6))


def test_a_fit_that_ends_before_the_first_average_keeps_its_weights() -> None:
    swa = StochasticWeightAveraging(0.05, 4)
    assert equal(weights(fit(swa, max_epochs=3)), weights(fit(max_epochs=3)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"swa_lrs": 0}, "above 0"),
        ({"swa_lrs": []}, "above 0"),
        ({"swa_lrs": 0.1, "swa_epoch_start": 1.5}, "share 0.0 to 1.0"),
        ({"swa_lrs": 0.1, "swa_epoch_start": 0}, "from 1"),
        ({"swa_lrs": 0.1, "annealing_strategy": "cosine"}, "cos, linear"),
    ],
)
def test_wrong_arguments_of_swa_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        StochasticWeightAveraging(**arguments)


def test_what_swa_cannot_train_is_refused_before_training() -> None:
    class Two(Classifier):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in self.net[::2]]

    class Manual(tiny.Tiny):
        automatic_optimization = False

    swa = StochasticWeightAveraging(0.05)
    with pytest.raises(ConfigError, match="one optimiser"):
        fit(swa, module=Two())
    with pytest.raises(ConfigError, match="manual"):
        trainer(callbacks=[swa]).fit(Manual(), tiny.loader())
    with pytest.raises(ConfigError, match="max_epochs"):
        fit(swa, max_epochs=-1, max_steps=3)


class Reference(Callback):
    """torch's own average beside ours."""

    def __init__(self, **how: Any) -> None:
        self.how = how

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.average = AveragedModel(module, **self.how)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:  # type: ignore
        self.average.update_parameters(module)


def by_thirds(average: Any, weight: Any, count: Any) -> Any:
    return average + (weight - average) / 3


@pytest.mark.parametrize("how", [{}, {"avg_fn": by_thirds}])
def test_weight_averaging_is_torchs_averaged_model(how: dict[str, Any]) -> None:
    reference = Reference(**how)
    module = fit(WeightAveraging(**how), reference)
    for ours, theirs in zip(module.parameters(), reference.average.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_weight_averaging_saves_the_average_as_the_model(tmp_path: Any) -> None:
    module = tiny.Tiny()
    run = tiny.trainer(tmp_path, WeightAveraging(), max_epochs=2)
    run.fit(module, tiny.loader())
    saved = read_weights(run.checkpoint_callback.last_model_path)
    assert all(torch.equal(saved[name], value) for name, value in module.state_dict().items())


def test_the_average_may_be_kept_elsewhere() -> None:
    """On the meta device there are no numbers, so nothing but the place can be looked at."""
    placed: list[str] = []

    class Looks(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            placed.extend({str(tensor.device) for tensor in ema._average.values()})

        def on_train_end(self, trainer: Any, module: Any) -> None:
            ema._average = {}

    ema = EMA(0.9, device="meta")
    fit(Looks(), ema, max_epochs=1, limit_val_batches=0)
    assert placed == ["meta"]
    assert EMAWeightAveraging is EMA


def test_an_unknown_argument_of_the_average_is_refused() -> None:
    with pytest.raises(ConfigError, match="avg_fn"):
        WeightAveraging(average=min)
    with pytest.raises(ConfigError, match="avg_fn or multi_avg_fn"):
        WeightAveraging(avg_fn=min, multi_avg_fn=min)


# --- accumulation that changes


def test_accumulation_follows_its_schedule() -> None:
    run = trainer(max_epochs=4, callbacks=[GradientAccumulationScheduler({1: 4, 3: 2})])
    steps: list[int] = []

    class Counts(Classifier):
        def on_train_epoch_end(self) -> None:
            steps.append(self.global_step)
            assert self.trainer.estimated_stepping_batches == 6 + 2 + 2 + 3

    run.fit(Counts(), loader(48))
    # 6 batches: 6 steps, then a window of 4 and one of 2 twice, then 3 windows of 2.
    assert steps == [6, 8, 10, 13]


@pytest.mark.parametrize("schedule", [{}, {-1: 2}, {0: 0}, {0: 1.5}, {"0": 2}])
def test_a_schedule_that_is_none_is_refused(schedule: Any) -> None:
    with pytest.raises(ConfigError, match="epoch from 0"):
        GradientAccumulationScheduler(schedule)


def test_a_second_accumulation_is_refused() -> None:
    class Manual(Classifier):
        automatic_optimization = False

    class Closure(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    scheduler = GradientAccumulationScheduler({0: 2})
    with pytest.raises(ConfigError, match="accumulate_grad_batches"):
        fit(scheduler, accumulate_grad_batches=2)
    for module, name in ((Manual(), "manual"), (Closure(), "LBFGS")):
        with pytest.raises(ConfigError, match=name):
            fit(scheduler, module=module)
