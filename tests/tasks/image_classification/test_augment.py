"""Augmentation: exact, per sample, and the same whatever a sample is batched with."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from renshu_tasks.image_classification import augment
from renshu_tasks.image_classification.augment import LEVELS, Level

SEED = torch.tensor([1, -5, 2**62, 77, 123456789, 0])


def pictures(count: int = 6, channels: int = 3, side: int = 12) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(3))


def test_random_numbers_are_those_of_splitmix64() -> None:
    # first outputs for seed 0, as published with the reference code
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    found = augment.splitmix64(torch.tensor([0]), torch.tensor([1, 2, 3]))
    assert [value % (1 << 64) for value in found.tolist()] == published


def test_random_numbers_are_uniform_and_independent() -> None:
    draws = augment.uniforms(torch.arange(20_000), 3)
    assert draws.min() >= 0 and draws.max() < 1
    for row in draws:
        assert stats.kstest(row.numpy(), "uniform").pvalue > 1e-3
    assert torch.corrcoef(draws).fill_diagonal_(0).abs().max() < 0.03


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "none"])
def test_a_sample_is_augmented_the_same_alone_and_in_a_batch(name: str) -> None:
    images = pictures()
    together = augment.augment(images, SEED, LEVELS[name])
    alone = [augment.augment(images[i : i + 1], SEED[i : i + 1], LEVELS[name]) for i in range(6)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6, rtol=0)
    order = torch.tensor([3, 1, 5])
    some = augment.augment(images[order], SEED[order], LEVELS[name])
    assert torch.allclose(together[order], some, atol=1e-6, rtol=0)
    assert not torch.allclose(together, images, atol=0.05)


def test_augmentation_leaves_the_generators_alone() -> None:
    before = torch.get_rng_state()
    augment.augment(pictures(), SEED, LEVELS["standard"])
    assert torch.equal(before, torch.get_rng_state())


def test_none_changes_nothing() -> None:
    images = pictures()
    assert torch.equal(augment.augment(images, SEED, LEVELS["none"]), images)


@pytest.mark.parametrize("shape", [(12, 12), (10, 16)])
def test_a_rotation_is_that_of_torchvision(shape: tuple[int, int]) -> None:
    """Clockwise there, hence the sign; each picture by its own angle."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as peer

    images = torch.rand(6, 3, *shape, generator=torch.Generator().manual_seed(3))
    found = augment.augment(images, SEED, Level(rotation=40))
    angles = (augment.uniforms(SEED, 1)[0] * 2 - 1) * 40
    for image, angle, rotated in zip(images, angles.tolist(), found, strict=True):
        expected = peer.affine(
            image, -angle, [0, 0], 1.0, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR
        )
        assert abs(angle) > 1 and torch.allclose(rotated, expected, atol=1e-5)


def test_flip_mirrors_about_half_of_the_pictures_exactly() -> None:
    images = pictures(1, 1).expand(400, -1, -1, -1)
    out = augment.augment(images, torch.arange(400), Level(flip=True))
    same = ((out - images).abs() < 1e-5).all(dim=(1, 2, 3))
    mirrored = ((out - images.flip(-1)).abs() < 1e-5).all(dim=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_crop_moves_by_whole_pixels_and_reflects_the_border() -> None:
    image = pictures(1, 1, 8)[0, 0]
    batch = image.expand(300, 1, 8, 8)
    out = augment.augment(batch, torch.arange(300), Level(crop=0.25, fill="reflection"))
    # out[y, x] = image[y + dy, x + dx] wherever that is inside
    seen = {
        (dy, dx)
        for picture in out[:, 0]
        for dy in range(-2, 3)
        for dx in range(-2, 3)
        if torch.allclose(_inside(picture, -dy, -dx), _inside(image, dy, dx), atol=1e-5)
    }
    assert len(seen) == 25
    assert torch.allclose(out.amax(), image.amax(), atol=1e-5) and out.amin() > image.amin() - 1e-5


def _inside(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """What is left of a picture that moves by (-dy, -dx) in its frame."""
    height, width = image.shape
    return image[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]


def test_rotation_keeps_its_range_and_turns_squarely_in_wide_pictures() -> None:
    size = (10, 40)
    maps = augment.affine_maps(torch.arange(500), Level(rotation=30), size)
    pixels = maps.clone()  # from normalised to pixel units: a turn is a rotation matrix there
    pixels[:, 0, 1] *= size[1] / size[0]
    pixels[:, 1, 0] *= size[0] / size[1]
    turn = pixels[:, :, :2]
    assert torch.allclose(turn @ turn.mT, torch.eye(2).expand(500, 2, 2), atol=1e-5)
    angles = torch.rad2deg(torch.atan2(pixels[:, 1, 0], pixels[:, 0, 0]))
    assert 28 < angles.max() <= 30 and -30 <= angles.min() < -28


def test_scale_keeps_its_range() -> None:
    maps = augment.affine_maps(torch.arange(500), Level(scale=0.25), (8, 8))
    sizes = torch.linalg.det(maps[:, :, :2]).sqrt()
    assert 0.8 <= sizes.min() < 0.82 and 1.22 < sizes.max() <= 1.25 + 1e-6


def test_brightness_and_contrast_stay_in_range() -> None:
    images = torch.full((200, 1, 4, 4), 0.5)
    out = augment.augment(images, torch.arange(200), Level(brightness=0.2))
    assert 0.3 - 1e-6 <= out.min() < 0.32 and 0.68 < out.max() <= 0.7 + 1e-6
    noisy = pictures(200, 1)
    out = augment.augment(noisy, torch.arange(200), Level(contrast=0.3))
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0), (1.0, 0), (0, 1.0), (0.4, 1.0)])
def test_mixing_conserves_the_mass_of_the_labels(mixup: float, cutmix: float) -> None:
    images, target = pictures(), torch.nn.functional.one_hot(torch.arange(6), 6).float()
    mixed, labels = augment.mix(images, target, SEED, mixup, cutmix)
    assert torch.allclose(labels.sum(1), torch.ones(6), atol=1e-6)
    assert (labels >= 0).all() and not torch.equal(mixed, images)


def test_cutmix_labels_are_the_share_of_the_pixels() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16) + 1
    target = torch.eye(4)
    seed = torch.tensor([5, 6, 7, 8])
    mixed, labels = augment.mix(images, target, seed, 0, 1.0)
    for i in range(4):
        own = (mixed[i] == i + 1).float().mean()
        other = (mixed[i] == (i - 1) % 4 + 1).float().mean()
        assert own + other == 1
        assert labels[i, i] == pytest.approx(own.item(), abs=1e-6)
        assert labels[i, (i - 1) % 4] == pytest.approx(other.item(), abs=1e-6)


def test_mixup_is_the_same_blend_of_pictures_and_labels() -> None:
    images, target = pictures(), torch.eye(6)
    mixed, labels = augment.mix(images, target, SEED, 0.4, 0)
    share = labels.diagonal()[:, None, None, None]
    assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
    assert (share >= 0.5).all()


@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 3.0])
def test_shares_follow_the_folded_beta_distribution(alpha: float) -> None:
    quantile = torch.linspace(0.001, 0.999, 200)
    found = augment.symmetric_beta(quantile, alpha).double()
    expected = 1 - torch.tensor(stats.beta.ppf(quantile.double().numpy() / 2, alpha, alpha))
    assert (found - expected).abs().max() < 1e-3


def test_bytes_become_floats_in_0_to_1() -> None:
    assert augment.to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]
    assert math.isclose(float(augment.to_float(torch.tensor(0.25))), 0.25)
