"""What finished masks cost to measure and volumes to predict, beside MONAI in the same run.

Surface metrics: ten cases of 128³ voxels with three structures (deformed ellipsoids, `case` and its
seeds), spacing 1.5 × 0.8 × 0.8 mm; HD95, normalised surface Dice at 2 mm and Dice. MONAI gets its
one-hot masks ready made.

Sliding window: Conv3d(1, 4, 3) over 160³, windows of 64³, overlap 0.5, Gaussian weights, one window
at once and four; ours gives class numbers, MONAI its logits. Times are the thread's own, so that
others on the machine count less, and all ways take turns.

Peak memory: int16 volume of 512 × 512 × 800 from a memory map, windows of 64³, overlap 0.25,
Conv3d(1, 8, 3), ReLU, Conv3d(8, classes, 1), each in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

import _table
from renshu_tasks.segmentation import inference, metrics

MONAI = _table.named("monai")
SPACING = (1.5, 0.8, 0.8)
TOLERANCE = 2.0
FIGURES = ("hd95_mm", "nsd", "dice")
CLASSES = {1: "one", 2: "two", 3: "three"}
VOLUME = (512, 512, 800)
MINUTES = 10

Mask = NDArray[np.uint8]


def case(seed: int, size: int = 128) -> tuple[Mask, Mask]:
    """A prediction and its reference: three ellipsoids with uneven surfaces, the former shifted."""
    rng = np.random.default_rng(seed)
    places = np.indices((size,) * 3, dtype=np.float32)
    middles = np.array([[44, 44, 64], [84, 80, 50], [64, 92, 96]]) + rng.uniform(-6, 6, (3, 3))
    radii = rng.uniform(18, 30, (3, 3))

    def drawn(shift: NDArray[np.float64]) -> Mask:
        noise = ndimage.gaussian_filter(rng.standard_normal((size,) * 3).astype(np.float32), 6)
        noise *= 0.06 / noise.std()
        mask = np.zeros((size,) * 3, np.uint8)
        for number, (middle, radius) in enumerate(zip(middles, radii, strict=True), 1):
            centre, scale = (np.reshape(v, (3, 1, 1, 1)) for v in (middle + shift, radius))
            mask[np.sqrt((((places - centre) / scale) ** 2).sum(0)) + noise < 1] = number
        return mask

    return drawn(rng.uniform(-1.5, 1.5, 3)), drawn(np.zeros(3))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of this thread, and what came back."""
    start = time.thread_time()
    found = call()
    return time.thread_time() - start, found


def with_monai(prediction: Tensor, reference: Tensor) -> list[Tensor]:
    """HD95, NSD and Dice of one-hot masks [1, 4, ...], each [1, 3]."""
    from monai import metrics as theirs

    spacing = list(SPACING)
    hd95 = theirs.compute_hausdorff_distance(prediction, reference, percentile=95, spacing=spacing)
    nsd = theirs.compute_surface_dice(prediction, reference, [TOLERANCE] * 3, spacing=spacing)
    return [hd95, nsd, theirs.compute_dice(prediction, reference, include_background=False)]


def one_hot(mask: Mask) -> Tensor:
    """float32 [1, 4, ...], the background first."""
    return torch.stack([torch.from_numpy(mask == number) for number in range(4)])[None].float()


def surfaces(cases: int) -> Iterator[_table.Row]:
    """Time a case, ours and MONAI's, and how far the values differ."""
    ours, theirs, apart = [], [], 0.0
    for seed in range(cases + 1):
        prediction, reference = case(seed)
        hot = one_hot(prediction), one_hot(reference)
        expected_time, expected = timed(lambda hot=hot: with_monai(*hot))
        mine, rows = timed(
            lambda p=prediction, r=reference: metrics.case_metrics(
                p, r, spacing=SPACING, classes=CLASSES, tolerance_mm=TOLERANCE, figures=FIGURES
            )
        )
        for figure, values in zip(FIGURES, expected, strict=True):
            found = torch.tensor([row[figure] for row in rows], dtype=torch.float64)
            apart = max(apart, float(((found - values[0]).abs() / values[0].abs()).max()))
        if seed:  # the first one warms up
            ours.append(mine)
            theirs.append(expected_time)
    what = f"HD95, NSD and Dice of {cases} cases of 128³, 3 structures"
    median = statistics.median(ours), statistics.median(theirs)
    yield _table.Row(f"{what}: time a case", "s", median[0], median[1], MONAI)
    shares = [theirs / mine for mine, theirs in zip(ours, theirs, strict=True)]
    spread = f"{min(shares):.1f} to {max(shares):.1f}"
    yield _table.Row(
        f"{what}: as fast as MONAI", "×", median[1] / median[0], reach=">= 5", spread=spread
    )
    yield _table.Row(
        f"{what}: largest relative difference", "millionths", apart * 1e6, reach="<= 10"
    )


def overhead(repeats: int, batch: int) -> Iterator[_table.Row]:
    """Time over that of the same patches, in the same batches, through the network alone."""
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    network = nn.Conv3d(1, 4, 3, padding=1).eval()
    image = np.random.default_rng(0).standard_normal((1, 160, 160, 160)).astype(np.float32)
    whole = torch.from_numpy(image)[None]
    patches = [
        whole[:, :, a : a + 64, b : b + 64, c : c + 64]
        for a, b, c in product(range(0, 97, 32), repeat=3)
    ]
    batches = [torch.cat(patches[n : n + batch]) for n in range(0, len(patches), batch)]

    @torch.inference_mode()
    def alone() -> None:
        for some in batches:
            network(some)

    @torch.inference_mode()
    def theirs() -> None:
        sliding_window_inference(whole, (64,) * 3, batch, network, overlap=0.5, mode="gaussian")

    def ours() -> None:
        inference.segment(network, image, (64,) * 3, 0.5, 4, batch=batch)

    times: dict[str, list[float]] = {"alone": [], "ours": [], "theirs": []}
    for number in range(repeats + 1):
        for name, call in (("alone", alone), ("ours", ours), ("theirs", theirs)):
            seconds, _ = timed(call)
            if number:
                times[name].append(seconds)
    mine, peer = (
        [one / base for one, base in zip(times[name], times["alone"], strict=True)]
        for name in ("ours", "theirs")
    )
    what = f"sliding window of 64³ over 160³, Conv3d(1, 4, 3), one thread, {batch} at once"
    spread = f"{min(mine):.3f} to {max(mine):.3f}, MONAI {min(peer):.3f} to {max(peer):.3f}"
    spread += "; seconds " + ", ".join(f"{n} {statistics.median(t):.2f}" for n, t in times.items())
    middle = statistics.median(mine), statistics.median(peer)
    over = f"{what}, over the patches alone"
    yield _table.Row(over, "×", middle[0], middle[1], MONAI, reach="<= 1.08", spread=spread)
    yield _table.Row(f"{what}, against MONAI", "×", middle[0], middle[1], MONAI, reach="< peer")


class Stored:
    """An int16 volume on disk, scaled as it is read."""

    def __init__(self, file: Path) -> None:
        self.voxels = np.memmap(file, np.int16, "r", shape=VOLUME)
        self.shape = (1, *VOLUME)

    def __getitem__(self, place: tuple[slice, ...]) -> NDArray[np.float32]:
        return (self.voxels[place[1:]].astype(np.float32) - 40) / 300


def volume(file: Path, classes: int) -> tuple[float, float]:
    """Peak memory in GiB and minutes of predicting the stored volume; for a process of its own."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, classes, 1))
    start = time.perf_counter()
    mask = inference.segment(network.eval(), Stored(file), (64, 64, 64), 0.25, classes)
    minutes = (time.perf_counter() - start) / 60
    if mask.shape != VOLUME or len(np.unique(mask[::64, ::64, ::64])) < 2:
        raise RuntimeError("the volume was not segmented")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, minutes


def memory(quick: bool) -> Iterator[_table.Row]:
    """Peak memory and time with few and with many classes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "volume"
        if not quick:
            rng = np.random.default_rng(0)
            with file.open("wb") as out:
                for _ in range(VOLUME[0]):
                    rng.normal(40, 300, VOLUME[1:]).astype(np.int16).tofile(out)
        for classes in (2, 100):
            what = f"512×512×800, {classes} classes: "
            peak = (what + "peak memory", "GiB", "<= 3")
            length = (what + "time, two threads", "min", f"<= {MINUTES}")
            if quick:
                yield from (_table.stored(__file__, *row) for row in (peak, length))
                continue
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                found = pool.submit(volume, file, classes).result()
            for (name, unit, reach), value in zip((peak, length), found, strict=True):
                yield _table.Row(name, unit, value, reach=reach)


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    yield from surfaces(2 if quick else 10)
    for batch in (1, 4):
        yield from overhead(3 if quick else 9, batch)
    yield from memory(quick)


if __name__ == "__main__":
    _table.main(__file__, measure)
