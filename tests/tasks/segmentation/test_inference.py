"""The sliding window: equal to a plain dense one, whatever the memory; bounded memory."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("monai", reason="needs the medical extra")

from renshu.errors import ConfigError, RunError
from renshu_tasks.segmentation import inference


def network(axes: int, classes: int, channels: int = 1) -> nn.Module:
    kind = nn.Conv3d if axes == 3 else nn.Conv2d
    return kind(channels, classes, 3, padding=1).eval()


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def dense(model: nn.Module, image: np.ndarray, patch: tuple[int, ...], overlap: float) -> Tensor:
    """Written anew from the definition, in float64: pad, all windows, weigh, divide."""
    pads = [
        (max(0, p - n) // 2, max(0, p - n) - max(0, p - n) // 2)
        for n, p in zip(image.shape[1:], patch, strict=True)
    ]
    padded = torch.from_numpy(np.pad(image, [(0, 0), *pads]))[None]
    starts = []
    for n, p in zip(padded.shape[2:], patch, strict=True):
        step = max(1, int(p * (1 - overlap)))
        starts.append(sorted({min(s, n - p) for s in range(0, n - p + step, step)}))
    weight = torch.ones((), dtype=torch.float64)
    for p in patch:
        x = torch.arange(p, dtype=torch.float64) - (p - 1) / 2
        weight = weight[..., None] * torch.exp(-(x**2) / (2 * (p / 8) ** 2))
    sums: Any = 0
    total = torch.zeros(padded.shape[2:], dtype=torch.float64)
    for place in product(*starts):
        at = tuple(slice(s, s + p) for s, p in zip(place, patch, strict=True))
        with torch.no_grad():
            found = model(padded[(slice(None), slice(None), *at)])[0].double()
        if isinstance(sums, int):
            sums = torch.zeros(found.shape[0], *padded.shape[2:], dtype=torch.float64)
        sums[(slice(None), *at)] += found * weight
        total[at] += weight
    crop = tuple(slice(a, a + n) for (a, _), n in zip(pads, image.shape[1:], strict=True))
    return (sums / total)[(slice(None), *crop)]


CASES = [
    ((1, 40, 33, 21), (16, 16, 16), 0.5),
    ((2, 25, 17, 30), (8, 17, 12), 0.25),
    ((1, 9, 40, 7), (16, 16, 16), 0.5),  # smaller than the patch along two axes
    ((1, 17, 16, 16), (16, 16, 16), 0.5),
    ((1, 1, 1, 1), (8, 8, 8), 0.5),  # one voxel
    ((3, 50, 31), (16, 16), 0.75),
    ((1, 20, 20), (7, 5), 0.0),
]


@pytest.mark.parametrize(("shape", "patch", "overlap"), CASES)
@pytest.mark.parametrize("memory", [2**30, 60_000, 1])
def test_equals_a_dense_window(
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    overlap: float,
    memory: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # pains/medical.md row 14
    monkeypatch.setattr(inference, "MEMORY", memory)
    model, image = network(len(patch), 4, shape[0]), picture(*shape)
    expected = dense(model, image, patch, overlap)
    found = inference.logits(model, image, patch, overlap, 4)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    mask = inference.segment(model, image, patch, overlap, 4, memory=memory)
    top = expected.topk(2, dim=0).values
    sure = (top[0] - top[1] > 1e-5).numpy()
    assert mask.dtype == np.uint8
    assert (mask == expected.argmax(0).numpy())[sure].all()
    assert sure.mean() > 0.99


def test_equals_monai_where_it_does_not_lift_small_weights() -> None:
    """MONAI raises weights below 1e-3 to it; a window of two voxels an axis has none."""
    from monai.inferers import sliding_window_inference

    model, image = network(3, 3), picture(1, 7, 9, 8)
    with torch.no_grad():
        theirs = sliding_window_inference(
            torch.from_numpy(image)[None], (2, 2, 2), 1, model, overlap=0.5, mode="gaussian"
        )[0]
    assert torch.allclose(inference.logits(model, image, (2, 2, 2), 0.5, 3), theirs, atol=1e-5)


def test_mirroring_averages_all_combinations() -> None:
    model, image = network(3, 3), picture(1, 16, 12, 10)
    expected = torch.zeros(3, 16, 12, 10)
    for axes in ((), (0,), (2,), (0, 2)):
        turned = np.flip(image, [axis + 1 for axis in axes]).copy()
        found = inference.logits(model, turned, (16, 12, 10), 0.5, 3)
        expected += found.flip([axis + 1 for axis in axes]) / 4
    found = inference.logits(model, image, (16, 12, 10), 0.5, 3, (0, 2))
    assert torch.allclose(found, expected, atol=1e-5)
    mask = inference.segment(model, image, (16, 12, 10), 0.5, 3, (0, 2))
    assert (mask == expected.argmax(0).numpy()).mean() > 0.999


@pytest.mark.parametrize("memory", [2**30, 40_000])
@pytest.mark.parametrize("shape", [(45, 50, 33), (17, 20, 33), (30, 33, 22), (61, 7, 22)])
def test_the_answer_on_another_spacing_interpolates_the_logits(
    shape: tuple[int, ...], memory: int
) -> None:  # pains/medical.md row 10
    model, image = network(3, 4), picture(1, 30, 33, 22)
    found = inference.segment(model, image, (12, 12, 12), 0.5, 4, shape=shape, memory=memory)
    whole = inference.logits(model, image, (12, 12, 12), 0.5, 4)[None]
    expected = torch.nn.functional.interpolate(whole, shape, mode="trilinear")[0]
    assert found.shape == shape
    assert (found == expected.argmax(0).numpy()).mean() > 0.9999


@pytest.mark.parametrize("batch", [2, 5])
def test_windows_in_batches_give_the_same_answer(batch: int) -> None:
    seen: list[int] = []
    model, image = network(3, 4), picture(1, 30, 33, 22)

    def watched(values: Tensor) -> Tensor:
        seen.append(len(values))
        return model(values)

    arguments = (image, (12, 12, 12), 0.5, 4, (0,))
    found = inference.segment(watched, *arguments, batch=batch)
    assert max(seen) == batch
    assert (found == inference.segment(model, *arguments)).mean() > 0.9999


def test_deep_supervision_gives_its_finest_answer() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine = network(2, 3)

        def forward(self, values: Tensor) -> list[Tensor]:
            return [self.fine(values), values]

    model, image = Deep().eval(), picture(1, 20, 20)
    expected = inference.segment(model.fine, image, (8, 8), 0.5, 3)
    assert (inference.segment(model, image, (8, 8), 0.5, 3) == expected).all()


def test_many_classes_have_wide_numbers() -> None:
    mask = inference.segment(network(2, 300), picture(1, 20, 20), (8, 8), 0.5, 300)
    assert mask.dtype == np.int16
    assert mask.max() > 255


class Watched:
    """An image that is read in pieces and remembers the largest."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.largest = values, values.shape, 0

    def __getitem__(self, place: tuple[slice, ...]) -> np.ndarray:
        found = self.values[place]
        self.largest = max(self.largest, found.size)
        return found


def test_a_volume_is_read_window_by_window(tmp_path: Path) -> None:
    values = picture(1, 40, 40, 40)
    stored = np.memmap(tmp_path / "volume", np.float32, "w+", shape=values.shape)
    stored[:] = values
    stored.flush()
    watched = Watched(np.memmap(tmp_path / "volume", np.float32, "r", shape=values.shape))
    model = network(3, 2)
    found = inference.segment(model, watched, (16, 16, 16), 0.5, 2)
    assert watched.largest == 16**3
    assert (found == inference.segment(model, values, (16, 16, 16), 0.5, 2)).all()


@pytest.mark.parametrize("classes", [2, 100])
def test_memory_does_not_grow_with_the_classes(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # pains/medical.md rows 2, 14
    """All sums of 100 classes would be 26 MB here; none above 2 MB is ever made."""
    sizes: list[int] = []
    for library, name in ((np, "zeros"), (torch, "zeros"), (torch, "empty")):
        make = getattr(library, name)

        def watched(*args: Any, make: Any = make, **options: Any) -> Any:
            made = make(*args, **options)
            sizes.append(made.nbytes)
            return made

        monkeypatch.setattr(library, name, watched)
    image = picture(1, 64, 32, 32)
    inference.segment(network(3, classes), image, (8, 8, 8), 0.5, classes, memory=2**21)
    assert max(sizes) <= 2**21
    assert classes * math.prod(image.shape) * 4 > 2**21 or classes == 2


def test_nan_in_the_image_is_an_error() -> None:
    image = picture(1, 20, 20)
    image[0, 3, 3] = np.nan
    with pytest.raises(RunError, match=r"NaN or infinite logits"):
        inference.segment(network(2, 3), image, (8, 8), 0.5, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch": (8,)}, "2 whole numbers"),
        ({"patch": (8, 0)}, "2 whole numbers"),
        ({"overlap": 1.0}, "below 1"),
        ({"mirror_axes": (2,)}, "of 0 to 1"),
        ({"mirror_axes": (0, 0)}, "of 0 to 1"),
        ({"classes": 4}, r"answers \(1, 3, 8, 8\).*"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], said: str) -> None:
    arguments: dict[str, Any] = {"patch": (8, 8), "overlap": 0.5, "classes": 3} | change
    with pytest.raises(ConfigError, match=said):
        inference.segment(network(2, 3), picture(1, 20, 20), **arguments)
