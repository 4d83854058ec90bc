"""A fit does what the same loop by hand does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import renshu
from renshu.errors import ConfigError
from small_models import Classifier, digits, equal, loader, trainer, weights


def by_hand(module: Classifier, batches: list[Any], epochs: int = 1) -> None:
    optimizer = module.configure_optimizers()
    for _ in range(epochs):
        for images, labels in batches:
            optimizer.zero_grad()
            cross_entropy(module(images), labels).backward()
            optimizer.step()


def batches(n: int = 96, size: int = 8) -> list[Any]:
    images, labels = digits(n)
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, n, size)]


def test_weights_equal_those_of_the_loop_by_hand() -> None:
    ours, theirs = Classifier(), Classifier()
    trainer(max_epochs=3).fit(ours, batches())
    by_hand(theirs, batches(), epochs=3)
    assert equal(weights(ours), weights(theirs))


def test_a_loader_and_a_list_of_its_batches_train_the_same() -> None:
    first, second = Classifier(), Classifier()
    trainer(max_epochs=2).fit(first, loader(shuffle=False))
    trainer(max_epochs=2).fit(second, batches())
    assert equal(weights(first), weights(second))


def test_a_custom_collate_gives_the_same_batches_as_the_tensor_shortcut() -> None:
    first, second = Classifier(), Classifier()
    trainer().fit(first, loader())
    trainer().fit(second, loader(collate_fn=lambda rows: torch.utils.data.default_collate(rows)))
    assert equal(weights(first), weights(second))


def test_the_seed_decides_the_order() -> None:
    runs = []
    for seed in (1, 1, 2):
        module = Classifier()
        trainer(seed=seed).fit(module, loader())
        runs.append(weights(module))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_max_steps_ends_inside_an_epoch() -> None:
    run = trainer(max_epochs=-1, max_steps=17)
    run.fit(Classifier(), loader())
    assert (run.global_step, run.current_epoch, run.progress.batch) == (17, 1, 5)


def test_stop_after_counts_samples() -> None:
    run = trainer(max_epochs=-1, stop_after="100 samples")
    run.fit(Classifier(), loader())
    assert run.progress.samples == 104


def test_should_stop_waits_for_min_epochs() -> None:
    class Stop(renshu.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = True

    run = trainer(max_epochs=5, min_epochs=2, callbacks=[Stop()])
    run.fit(Classifier(), loader())
    assert run.global_step == 24


# pains/trainer.md row 36
def test_a_second_fit_starts_new_counters_and_trains_another_module() -> None:
    run = trainer(max_epochs=2)
    run.fit(Classifier(), loader())
    second, fresh = Classifier(seed=1), Classifier(seed=1)
    run.fit(second, loader())
    trainer(max_epochs=2).fit(fresh, loader())
    assert run.global_step == 24
    assert equal(weights(second), weights(fresh))


def test_limits_by_number_and_by_share() -> None:
    seen: list[int] = []

    class Count(Classifier):
        def on_train_batch_end(self, *_: Any) -> None:
            seen.append(self.trainer.progress.batch)

    trainer(limit_train_batches=5).fit(Count(), loader())
    trainer(limit_train_batches=0.25).fit(Count(), loader())
    assert len(seen) == 5 + 3


def test_fast_dev_run_writes_nothing(run_dir: Any) -> None:
    run = renshu.Trainer(accelerator="cpu", fast_dev_run=True)
    run.fit(Classifier(), loader(), loader())
    assert run.global_step == 1
    assert not list(run_dir.iterdir())


def test_predict_keeps_the_order_and_test_returns_what_was_logged() -> None:
    class Full(Classifier):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return batch[1]

    module, run = Full(), trainer()
    parts = run.predict(module, loader(90, shuffle=False))
    assert torch.equal(torch.cat(parts), digits(90)[1])
    images, labels = digits(90)
    expected = (module(images).argmax(1) == labels).float().mean().item()
    assert run.test(module, loader(90))[0]["accuracy"] == pytest.approx(expected, abs=1e-7)


# pains/trainer.md row 13
def test_memory_of_an_evaluation_does_not_grow_with_its_batches() -> None:
    import gc
    import weakref

    alive: list[int] = []
    outputs: list[Any] = []

    class Keep(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            output = self(batch[0])
            outputs.append(weakref.ref(output))
            gc.collect()
            alive.append(sum(ref() is not None for ref in outputs))
            return {"output": output}

    trainer().validate(Keep(), loader(96, batch_size=2), verbose=False)
    assert len(alive) == 48
    assert max(alive) <= 2


# pains/trainer.md row 35
def test_a_frozen_part_stays_in_eval_mode_and_its_statistics_stay() -> None:
    class Frozen(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10), nn.BatchNorm1d(10))
            self.net[0].eval().requires_grad_(False)

    module = Frozen()
    before = module.net[0].running_mean.clone()
    modes: list[tuple[bool, bool]] = []

    class Look(renshu.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            modes.append((module.net[0].training, module.net[2].training))

    trainer(max_epochs=2, callbacks=[Look()], val_check_interval=3).fit(module, loader(), loader())
    assert set(modes) == {(False, True)}
    assert torch.equal(module.net[0].running_mean, before)
    assert not torch.equal(module.net[2].running_mean, torch.zeros(10))


# capabilities B6
def test_nested_batches_move_and_plain_torch_can_use_a_module() -> None:
    from collections import namedtuple

    from renshu.data import move

    pair = namedtuple("pair", "a b")
    batch = {"x": [torch.ones(2), pair(torch.ones(1), "text")], "n": 3}
    moved = move(batch, torch.device("meta"))
    assert moved["x"][0].device.type == "meta" == moved["x"][1].a.device.type
    assert (moved["x"][1].b, moved["n"]) == ("text", 3)
    module = Classifier()
    module.training_step(batches()[0], 0).backward()  # log() does nothing without a trainer
    assert module.net[0].weight.grad is not None


def test_lbfgs_and_an_own_optimizer_step_get_the_closure() -> None:
    class Quasi(Classifier):
        calls = 0

        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)

    class Own(Classifier):
        order: list[str]

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            self.order.append("optimizer_step")
            optimizer.step(closure=closure)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.order.append("training_step")
            return super().training_step(batch, batch_idx)

    ours, theirs = Quasi(), Quasi()
    run = trainer()
    run.fit(ours, batches(32))
    optimizer = theirs.configure_optimizers()
    for images, labels in batches(32):

        def closure(images: Any = images, labels: Any = labels) -> Any:
            optimizer.zero_grad()
            loss = cross_entropy(theirs(images), labels)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert equal(weights(ours), weights(theirs))
    assert run.global_step == 4
    own, plain = Own(), Classifier()
    own.order = []
    trainer().fit(own, batches(32))
    trainer().fit(plain, batches(32))
    assert own.order[:2] == ["optimizer_step", "training_step"]
    assert equal(weights(own), weights(plain))


def test_two_optimisers_step_together_and_count_one_step() -> None:
    class Two(Classifier):
        def configure_optimizers(self) -> Any:
            return [
                torch.optim.SGD(self.net[0].parameters(), lr=0.1),
                torch.optim.Adam(self.net[2].parameters(), lr=0.01),
            ]

    ours, theirs = Two(), Two()
    run = trainer()
    run.fit(ours, batches())
    optimizers = theirs.configure_optimizers()
    for images, labels in batches():
        for optimizer in optimizers:
            optimizer.zero_grad()
        cross_entropy(theirs(images), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
    assert run.global_step == 12
    assert equal(weights(ours), weights(theirs))


# pains/trainer.md row 21
def test_manual_optimisation_counts_one_step_a_batch_that_updated() -> None:
    class Manual(Classifier):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            if batch_idx % 3 == 2:
                return
            for optimizer in (first, second):
                optimizer.zero_grad()
            self.manual_backward(cross_entropy(self(batch[0]), batch[1]))
            first.step()
            second.step()
            second.step()

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.SGD(self.net[0].parameters(), lr=0.1),
                torch.optim.SGD(self.net[2].parameters(), lr=0.1),
            ]

    run = trainer(max_epochs=-1, max_steps=8)
    run.fit(Manual(), batches())
    assert (run.global_step, run.progress.batches) == (8, 11)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_equals_torchs(algorithm: str) -> None:
    ours, theirs = Classifier(lr=1.0), Classifier(lr=1.0)
    trainer(gradient_clip_val=0.05, gradient_clip_algorithm=algorithm).fit(ours, batches())
    optimizer = theirs.configure_optimizers()
    for images, labels in batches():
        optimizer.zero_grad()
        cross_entropy(theirs(images), labels).backward()
        if algorithm == "norm":
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        else:
            nn.utils.clip_grad_value_(theirs.parameters(), 0.05)
        optimizer.step()
    assert equal(weights(ours), weights(theirs))


# pains/trainer.md row 25
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "64-true"])
@pytest.mark.parametrize("fused", [False, True])
def test_the_clipped_norm_is_the_limit_in_every_precision(precision: str, fused: bool) -> None:
    norms: list[float] = []

    class Fused(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=fused)

        def optimizer_step(self, epoch: int, index: int, optimizer: Any, closure: Any) -> None:
            super().optimizer_step(epoch, index, optimizer, closure)

        def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
            super().configure_gradient_clipping(*arguments, **options)
            grads = [p.grad for p in self.parameters()]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))

    trainer(gradient_clip_val=0.05, precision=precision).fit(Fused(), batches())
    assert norms == pytest.approx([0.05] * len(norms), rel=1e-3)
    assert norms


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_epoch": 3}, "did you mean 'max_epochs'"),
        ({"precision": "bf32"}, "there is no precision"),
        ({"accelerator": "gpu"}, "has none"),
        ({"devices": 2}, "devices=2 cannot be had"),
        ({"strategy": "dpp"}, "there is no strategy"),
        ({"limit_train_batches": 1.5}, "limit_train_batches=1.5"),
        ({"validate_every": "10 steeps"}, "is not an interval"),
        ({"max_time": "3 hours"}, "DD:HH:MM:SS"),
    ],
)
def test_a_wrong_option_is_refused_when_the_trainer_is_made(
    options: dict[str, Any], says: str
) -> None:
    if options.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=says) as caught:
        trainer(**options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda m: [], "no optimiser"),
        (lambda m: {"optimizer": sgd(m), "lr_schedular": None}, "did you mean 'lr_scheduler'"),
        (lambda m: {"optimizer": sgd(m), "lr_scheduler": {"sheduler": 1}}, "sheduler"),
        (lambda m: {"optimizer": sgd(m), "lr_scheduler": step(sgd(m), interval="steps")}, "steps"),
        (lambda m: [sgd(m), sgd(m)], "share a parameter"),
        (lambda m: 3, "gave a int"),
    ],
)
def test_wrong_optimisers_are_refused_before_training(value: Any, says: str) -> None:
    class Wrong(Classifier):
        def configure_optimizers(self) -> Any:
            return value(self)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise AssertionError("training began")

    with pytest.raises(ConfigError, match=says):
        trainer().fit(Wrong(), batches())


def sgd(module: nn.Module) -> Any:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def step(optimizer: Any, **keys: Any) -> Any:
    return {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1), **keys}


def test_a_loss_without_graph_and_an_empty_loader_are_named() -> None:
    class Detached(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx).detach()

    with pytest.raises(ConfigError, match="no graph"):
        trainer().fit(Detached(), batches())
    with pytest.raises(ConfigError, match="gave no batch"):
        trainer().fit(Classifier(), [])


# pains/trainer.md row 23
def test_schedulers_by_step_and_epoch_count_across_epochs_and_once_an_update() -> None:
    class Scheduled(Classifier):
        def __init__(self, **keys: Any):
            super().__init__()
            self.keys = keys

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **self.keys}}

    def halvings(run: Any, **keys: Any) -> float:
        module = Scheduled(**keys)
        run.fit(module, batches())
        import math

        return round(-math.log2(run.optimizers[0].param_groups[0]["lr"] / 1e-3))

    assert halvings(trainer(max_epochs=3), interval="epoch") == 3
    assert halvings(trainer(max_epochs=3), interval="step", frequency=18) == 2
    assert halvings(trainer(max_epochs=2, accumulate_grad_batches=4), interval="step") == 6
    assert halvings(trainer(max_epochs=2), every="100 samples") == 1
