"""What learns, when and how fast."""

from __future__ import annotations

import pytest
import torch

from renshu.errors import ConfigError
from renshu_tasks.image_classification import finetune, models
from renshu_tasks.image_classification.options import TrainingOptions


def network() -> torch.nn.Module:
    return models.build_model("small", channels=1, classes=3, image_size=8, width=4)


def learning(model: torch.nn.Module) -> list[str]:
    """Names of the stages whose parameters all require gradients."""
    parameters = dict(model.named_parameters())
    return [
        stage
        for stage, names in models.stages(model).items()
        if all(parameters[name].requires_grad for name in names)
    ]


def test_a_linear_probe_trains_the_head_alone() -> None:
    model = network()
    finetune.apply(model, TrainingOptions(tune="head"), epoch=50)
    assert learning(model) == ["head"]
    assert sum(p.requires_grad for p in model.parameters()) == 2


def test_stages_wake_up_from_the_head_downwards() -> None:
    model, options = network(), TrainingOptions(tune="staged", unfreeze_every=2)
    found = []
    for epoch in range(8):
        finetune.apply(model, options, epoch)
        found.append(len(learning(model)))
    assert found == [1, 1, 2, 2, 3, 3, 4, 4]
    finetune.apply(model, options, 2)  # a pure function of the epoch, also backwards
    assert learning(model) == ["blocks.1", "head"]


def test_all_trains_all() -> None:
    model = network()
    finetune.apply(model, TrainingOptions(tune="head"), 0)
    assert finetune.apply(model, TrainingOptions(), 0) == []
    assert all(p.requires_grad for p in model.parameters())


def test_statistics_of_frozen_batch_norms_do_not_move() -> None:
    model = network()
    frozen = finetune.apply(model, TrainingOptions(tune="staged"), epoch=1)
    model.train()
    finetune.keep_still(frozen)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(16, 1, 8, 8) * 3 + 5)
    for name, value in model.named_buffers():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith("blocks.1"), name


def test_every_parameter_is_in_the_optimiser_once_and_norms_and_biases_do_not_decay() -> None:
    model, options = network(), TrainingOptions(learning_rate=0.1, weight_decay=0.3)
    groups = finetune.parameter_groups(model, options)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_lower_stages_learn_more_slowly(name: str) -> None:
    model = models.build_model(name, channels=3, classes=3, image_size=32, width=4)
    options = TrainingOptions(learning_rate=1.0, layer_decay=0.5)
    rate = {
        id(p): group["lr"]
        for group in finetune.parameter_groups(model, options)
        for p in group["params"]
    }
    parameters = dict(model.named_parameters())
    for depth, names in enumerate(reversed(models.stages(model).values())):
        assert {rate[id(parameters[name])] for name in names} == {0.5**depth}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "ligth"}, "did you mean 'light'"),
        ({"label_smoothing": 1.5}, r"training\.label_smoothing"),
        ({"unfreeze_every": 0}, r"training\.unfreeze_every"),
        ({"mixup": -0.1}, r"training\.mixup"),
        ({"threshold": 2.0}, "0 to 1"),
    ],
)
def test_a_wrong_option_is_refused_when_it_is_given(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingOptions(**options)
