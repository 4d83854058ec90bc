"""Augmentation, losses and networks: against torch, MONAI and theory."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from renshu.errors import ConfigError
from renshu_tasks.segmentation import augment as aug
from renshu_tasks.segmentation.case import IGNORE
from renshu_tasks.segmentation.losses import segmentation_loss
from renshu_tasks.segmentation.models import Folded, build_network
from renshu_tasks.segmentation.module import _mean_dice
from renshu_tasks.segmentation.plan import Intensity, Plan

PLAN = Plan(
    ("background", "a", "b"), (Intensity("case"),), (1.0, 1.0, 1.0), (16, 16, 16), 2, 10, "dynunet",
    (4, 8, 16), ((3, 3, 3),) * 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2)), (1, 1, 1), True,
)  # fmt: skip


def test_the_grid_is_that_of_torch() -> None:
    draws = torch.rand(3, 9)
    for shape, spacing in (((6, 8, 10), (1.0, 2.0, 0.5)), ((6, 8), (1.0, 2.0))):
        maps = aug.affine_maps(draws, aug.LEVELS["standard"], shape, spacing)
        expected = F.affine_grid(maps, [3, 1, *shape], align_corners=False)
        torch.testing.assert_close(aug._grid(maps, shape), expected, atol=1e-5, rtol=1e-5)


def test_a_turn_keeps_lengths_in_millimetres() -> None:
    # pains/medical.md row 9
    spacing = torch.tensor([3.0, 0.5, 1.0])
    shape = (10, 60, 30)
    level = aug.Level(rotation=40)
    maps = aug.affine_maps(torch.rand(5, 9), level, shape, spacing.tolist())
    half = (torch.tensor(shape) * spacing / 2).flip(0)
    points = torch.randn(5, 20, 3)  # millimetres, last axis of the patch first
    moved = torch.einsum("bij,bnj->bni", maps[:, :, :3], points / half) * half
    torch.testing.assert_close(moved.norm(dim=2), points.norm(dim=2), atol=1e-4, rtol=1e-4)


def test_no_augmentation_changes_nothing_and_mirrors_are_exact() -> None:
    image, mask = torch.randn(4, 2, 5, 6, 7), torch.randint(0, 3, (4, 5, 6, 7)).short()
    draws = torch.full((4, aug.DRAWS), 0.5)
    same, also = aug.augment(image.clone(), mask.clone(), draws, aug.Level(), (1, 1, 1))
    assert torch.equal(same, image)
    assert torch.equal(also, mask)
    draws[:2, 14] = 0.0
    turned, turned_mask = aug.augment(
        image.clone(), mask.clone(), draws, aug.Level(), (1, 1, 1), [1]
    )
    assert torch.equal(turned[:2], image[:2].flip(3))
    assert torch.equal(turned_mask[:2], mask[:2].flip(2))
    assert torch.equal(turned[2:], image[2:])


def test_what_comes_in_from_outside_is_unknown() -> None:
    maps = torch.eye(3, 4)[None].repeat(1, 1, 1)
    maps[:, 2, 3] = 1.0  # half a patch along the first axis
    image, mask = torch.randn(1, 1, 8, 8, 8), torch.ones(1, 8, 8, 8, dtype=torch.int16)
    _, found = aug.warp(image, mask, maps)
    assert (found[:, :4] == 1).all()
    assert (found[:, 4:] == IGNORE).all()


def test_image_and_mask_move_together() -> None:
    mask = torch.zeros(2, 24, 24, 24, dtype=torch.int16)
    mask[:, 6:15, 8:18, 5:12] = 1
    image, found = aug.augment(
        mask[:, None].float(), mask, torch.rand(2, aug.DRAWS),
        aug.Level(rotation=20, scale=0.2, shift=0.1), (1, 1, 2), [0],
    )  # fmt: skip
    known = found != IGNORE
    agree = ((image[:, 0] > 0.5) == (found == 1))[known].float().mean()
    assert agree > 0.985


def test_the_loss_is_dice_and_cross_entropy_of_monai() -> None:
    from monai.losses import DiceLoss

    torch.manual_seed(0)
    logits, mask = torch.randn(2, 3, 6, 7, 8), torch.randint(0, 3, (2, 6, 7, 8))
    annotated = torch.ones(2, 3, dtype=torch.bool)
    dice = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True,
        smooth_nr=1, smooth_dr=1,
    )(logits, mask[:, None])  # fmt: skip
    found = segmentation_loss(logits, mask, annotated)
    assert float(found) == pytest.approx(float(dice + F.cross_entropy(logits, mask)), abs=1e-5)
    log_p = logits.log_softmax(1).gather(1, mask[:, None])[:, 0]
    focal = (-log_p * (1 - log_p.exp()) ** 2).mean()
    found = segmentation_loss(logits, mask, annotated, "dice_focal")
    assert float(found) == pytest.approx(float(dice + focal), abs=1e-5)
    weights = torch.tensor([0.5, 2.0, 1.0])
    found = segmentation_loss(logits, mask, annotated, weights=weights)
    expected = dice + F.cross_entropy(logits, mask, weights)
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


def test_unknown_voxels_teach_nothing() -> None:
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    mask = torch.randint(0, 3, (2, 6, 6))
    mask[:, :3] = IGNORE
    segmentation_loss(logits, mask, torch.ones(2, 3, dtype=torch.bool)).backward()
    assert (logits.grad[:, :, :3] == 0).all()
    assert (logits.grad[:, :, 3:] != 0).any()
    nothing = segmentation_loss(logits, torch.full_like(mask, IGNORE), torch.ones(2, 3).bool())
    assert torch.isfinite(nothing)


def test_a_class_that_nobody_looked_for_gets_no_gradient_from_that_case() -> None:
    # pains/medical.md row 37
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    mask = torch.randint(0, 2, (2, 6, 6))
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    segmentation_loss(logits, mask, annotated).backward()
    assert (logits.grad[0, 2] == 0).all()
    assert (logits.grad[1, 2] != 0).any()
    assert (logits.grad[0, 1] != 0).any()


def test_the_logged_dice_leaves_out_what_nobody_looked_for() -> None:
    # pains/medical.md row 37
    truth = torch.tensor([[[0, 0, 1, IGNORE]], [[0, 2, 1, 1]]])
    predicted = torch.tensor([[[2, 2, 1, 1]], [[0, 2, 1, 0]]])  # 2 is right, but not drawn, in one
    everything = torch.ones(2, 3, dtype=torch.bool)
    partly = everything.clone()
    partly[0, 2] = False
    dice = _mean_dice(predicted, truth, partly)
    assert float(dice) == pytest.approx((2 * 2 / 5 + 1) / 2)  # classes 1 and 2
    dice = _mean_dice(predicted, truth, everything)
    assert float(dice) == pytest.approx((2 * 2 / 5 + 2 * 1 / 4) / 2)


def test_empty_masks_have_no_dice() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.int16)
    assert _mean_dice(empty, empty, torch.ones(1, 3, dtype=torch.bool)) is None


def test_folding_loses_no_voxel() -> None:
    image = torch.randn(2, 3, 4, 5, 6)
    folded = Folded(torch.nn.Identity(), (2, 1, 3))
    assert folded.folded(image).shape == (2, 18, 2, 5, 2)
    assert torch.equal(folded.unfolded(folded.folded(image)), image)
    flat = torch.randn(2, 3, 4, 6)
    expected = F.pixel_unshuffle(flat, 2)
    assert torch.equal(Folded(torch.nn.Identity(), (2, 2)).folded(flat), expected)


@pytest.mark.parametrize("name", ["dynunet", "unet", "segresnet"])
@pytest.mark.parametrize("fold", [1, 2])
def test_each_network_answers_at_the_resolution_of_the_patch(name: str, fold: int) -> None:
    plan = dataclasses.replace(PLAN, network=name, fold=(fold,) * 3, filters=(8, 16, 32))
    network = build_network(plan)
    image = torch.randn(1, 1, 16, 16, 16)
    outputs = network(image)
    assert outputs[0].shape == (1, 3, 16, 16, 16)
    coarser = [output.shape[2] for output in outputs]
    assert coarser == ([16, 8] if name == "dynunet" else [16])
    network.eval()
    assert len(network(image)) == 1


def test_a_dynunet_of_two_levels_is_refused_with_another_network() -> None:
    two = dataclasses.replace(
        PLAN, filters=(4, 8), kernels=PLAN.kernels[:2], strides=PLAN.strides[:2]
    )
    with pytest.raises(ConfigError, match="dynunet with 2 levels(.|\n)*--model.name unet"):
        build_network(two)


def test_an_encoder_of_torchvision_for_flat_pictures() -> None:
    flat = dataclasses.replace(
        PLAN, network="resnet18", patch=(64, 96), spacing=(1, 1), fold=(1, 1),
        kernels=((3, 3),), strides=((1, 1),), filters=(32,), intensities=(Intensity("case"),) * 2,
    )  # fmt: skip
    network = build_network(flat)
    assert network(torch.randn(2, 2, 64, 96))[0].shape == (2, 3, 64, 96)
    with pytest.raises(ConfigError, match="IMAGENET1K_V1"):
        build_network(flat, "IMAGENET")
    with pytest.raises(ConfigError, match="no weights by name"):
        build_network(PLAN, "DEFAULT")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    file = tmp_path / "w.safetensors"
    save_model(build_network(PLAN), file)
    build_network(PLAN, str(file))
    with pytest.raises(ConfigError, match="do not fit"):
        build_network(dataclasses.replace(PLAN, filters=(8, 16, 32)), str(file))
    (tmp_path / "p.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(ConfigError, match="do not fit"):
        build_network(PLAN, str(tmp_path / "p.safetensors"))


def test_the_level_names_are_those_of_the_options() -> None:
    assert set(aug.LEVELS) == {"none", "light", "standard"}
    assert math.isclose(aug.LEVELS["none"].noise, 0.0)
