"""ModelPruning: how much is zero, what is saved, and what is put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import tiny
from renshu.callbacks import ModelPruning
from renshu.checkpoints import read_weights
from renshu.errors import ConfigError
from small_models import Classifier, loader, trainer


def zeros(weights: Any) -> int:
    return sum(int((w == 0).sum()) for w in weights)


def fit(pruning: ModelPruning, **options: Any) -> Classifier:
    module = Classifier()
    trainer(callbacks=[pruning], **{"max_epochs": 3} | options).fit(module, loader(32), loader(16))
    return module


# capabilities E
def test_each_epoch_prunes_a_share_of_what_is_left() -> None:
    module = fit(ModelPruning("l1_unstructured", amount=0.5))
    left = total = sum(p.numel() for p in module.parameters())
    for _ in range(3):
        left -= round(left * 0.5)
    assert zeros(module.parameters()) == total - left
    assert not prune.is_pruned(module)


def test_the_smallest_weights_go() -> None:
    first = fit(ModelPruning("l1_unstructured", apply_pruning=False), max_epochs=1)
    second = fit(
        ModelPruning(
            "l1_unstructured", parameter_names=["weight"], amount=100,
            use_lottery_ticket_hypothesis=False,
        ),
        max_epochs=1,
    )  # fmt: skip
    plain, pruned = (
        torch.cat([m.net[n].weight.detach().flatten() for n in (0, 2)]) for m in (first, second)
    )
    assert set((pruned == 0).nonzero().flatten().tolist()) == set(
        plain.abs().argsort()[:100].tolist()
    )


def test_lottery_tickets_get_their_initial_weights_in_each_epoch() -> None:
    """Also in the second epoch, in which Lightning 2.6.6 finds them overwritten."""
    seen: list[torch.Tensor] = []

    class Starts(Classifier):
        def on_train_epoch_start(self) -> None:
            layer = self.net[0]
            seen.append(getattr(layer, "weight_orig", layer.weight).detach().clone())

    module = Starts()
    pruning = ModelPruning("l1_unstructured", amount=0.1)
    trainer(max_epochs=3, callbacks=[pruning]).fit(module, loader(32))
    assert torch.equal(seen[0], Classifier().net[0].weight)
    assert torch.equal(seen[1], seen[0])
    assert torch.equal(seen[2], seen[0])


def test_new_weights_may_be_drawn_instead() -> None:
    pruning = ModelPruning("random_unstructured", amount=0.1, resample_parameters=True)
    module, initial = fit(pruning), Classifier()
    left = module.net[0].weight != 0
    assert not torch.equal(module.net[0].weight[left], initial.net[0].weight[left])


@pytest.mark.parametrize("permanent", [True, False])
def test_a_checkpoint_holds_plain_weights_if_they_are_permanent(
    tmp_path: Any, permanent: bool
) -> None:
    pruning = ModelPruning(
        "l1_unstructured", amount=0.3, make_pruning_permanent=permanent,
        use_lottery_ticket_hypothesis=False,
    )  # fmt: skip
    module = tiny.Tiny()
    run = tiny.trainer(tmp_path, pruning, max_epochs=2)
    run.fit(module, tiny.loader())
    weights = read_weights(run.checkpoint_callback.last_model_path)
    assert any(name.endswith("_mask") for name in weights) != permanent
    assert prune.is_pruned(module) != permanent
    if permanent:
        assert weights.keys() == tiny.Tiny().state_dict().keys()
        assert zeros(weights[name] for name, _ in module.named_parameters()) == 15 + 10
        tiny.Tiny.load_from_checkpoint(run.checkpoint_callback.last_model_path)


def test_rows_are_pruned_whole() -> None:
    module = fit(
        ModelPruning(
            "ln_structured", parameter_names=["weight"], use_global_unstructured=False, amount=4,
            pruning_dim=0, pruning_norm=2,
        ),
        max_epochs=2,
    )  # fmt: skip
    assert [int((layer.weight == 0).all(1).sum()) for layer in (module.net[0], module.net[2])] == [
        8,
        8,
    ]


def test_only_the_chosen_parameters_are_pruned(capfd: pytest.CaptureFixture[str]) -> None:
    class Last(ModelPruning):
        def filter_parameters_to_prune(self, parameters_to_prune: Any = ()) -> Any:
            return [(m, n) for m, n in parameters_to_prune if getattr(m, "out_features", 0) == 10]

    module = fit(Last("l1_unstructured", amount=0.5, verbose=2), max_epochs=1)
    assert zeros(module.net[0].parameters()) == 0
    assert zeros(module.net[2].parameters()) == 85
    said = capfd.readouterr().err.splitlines()
    assert "renshu: pruned all parameters: 85 of 170 (50.0%)" in said
    assert sum("pruned net.2" in line for line in said) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pruning_fn": "l2_unstructured"}, "l1_unstructured"),
        ({"pruning_fn": "ln_structured"}, "use_global_unstructured=False"),
        ({"pruning_fn": "random_structured", "use_global_unstructured": False}, "pruning_dim"),
        ({"pruning_fn": "l1_unstructured", "parameter_names": ["weights"]}, "weight, bias"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        ModelPruning(**arguments)


def test_a_parameter_of_another_module_is_refused() -> None:
    other = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"Linear\.weight"):
        fit(ModelPruning("l1_unstructured", parameters_to_prune=[(other, "weight")]))
