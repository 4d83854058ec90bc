"""Cases become patches: prepared once, drawn evenly, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from renshu.errors import DataError
from renshu_tasks.segmentation.cache import Cache, key
from renshu_tasks.segmentation.case import IGNORE, Case
from renshu_tasks.segmentation.data import SegmentationData, check
from renshu_tasks.segmentation.options import DataOptions, ModelOptions, SegmentationOptions
from renshu_tasks.segmentation.patches import Patches
from renshu_tasks.segmentation.plan import Intensity
from renshu_tasks.segmentation.prepare import Prepared, normalise, padded, prepare
from renshu_tasks.segmentation.records import Record, Source
from renshu_tasks.segmentation.sources import find

Write = Callable[..., Path]
SMALL = ModelOptions(depth=3, width=4)


def built(folder: Path, **data: object) -> SegmentationData:
    options = SegmentationOptions(data=DataOptions(path=str(folder), **data), model=SMALL)  # type: ignore[arg-type]
    return SegmentationData(find(options.data), options)


def test_data_in_three_parts_with_plan_and_fingerprint(tmp_path: Path, write_cases: Write) -> None:
    data = built(write_cases(tmp_path, 8))
    assert [len(data.parts[part]) for part in ("train", "val", "test")] == [5, 1, 2]
    assert data.classes == ["background", "class 1", "class 2"]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 1, *data.plan.patch)
    assert batch["image"].dtype == torch.float32
    assert abs(float(batch["image"].mean())) < 0.5
    assert set(data.fingerprint()["test"]) == {"files", "bytes", "sha256", "ids"}
    train = {data.records[row].id for row in data.parts["train"]}
    assert not train & set(data.fingerprint()["test"]["ids"])


@pytest.mark.parametrize(
    ("annotated", "said"), [("1", "not listed: 2"), ("1|2|7", "no class has the number 7")]
)
def test_what_contradicts_the_annotated_classes_is_refused(
    tmp_path: Path, write_cases: Write, annotated: str, said: str
) -> None:
    write_cases(tmp_path, 8)
    rows = [f"images/p{n}.nii.gz,labels/p{n}.nii.gz,{annotated * (n == 3)}" for n in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["image,mask,annotated", *rows]))
    with pytest.raises(DataError, match=said) as raised:
        built(tmp_path / "t.csv")
    assert "p3, annotated" in str(raised.value)


@pytest.mark.parametrize("kind", ["case", "nonzero"])
def test_intensities_are_normalised_plane_by_plane_as_at_once(kind: str) -> None:
    random = np.random.default_rng(0)
    values = random.normal(1000, 7, (9, 8, 7)).astype(np.float32)
    values[random.random(values.shape) < 0.3] = 0
    found = np.empty_like(values)
    normalise(values, Intensity(kind), found)  # type: ignore[arg-type]
    inside = values != 0 if kind == "nonzero" else np.ones(values.shape, bool)
    expected = (values - values[inside].mean(dtype=float)) / values[inside].std(dtype=float)
    np.testing.assert_allclose(found, np.where(inside, expected, 0), atol=1e-4)


def test_check_data_says_all_before_training(tmp_path: Path, write_cases: Write) -> None:
    folder = write_cases(tmp_path, 8)
    said = "\n".join(check(SegmentationOptions(data=DataOptions(path=str(folder)))))
    for word in ("14×16×12", "1×1×1 mm", "RAS (8)", "class 2", "plan: patch", "train 5, val 1"):
        assert word in said


def test_an_empty_mask_is_warned_of_and_only_empty_ones_are_refused(
    tmp_path: Path, write_cases: Write, write_nifti: Write
) -> None:
    folder = write_cases(tmp_path, 8)
    write_nifti(folder / "labels" / "p0.nii.gz", np.zeros((14, 16, 12), np.uint8))
    said = "\n".join(built(folder, split_seed=3).planned() + built(folder).planned())
    assert "p0: the mask is empty" in said
    for number in range(8):
        write_nifti(folder / "labels" / f"p{number}.nii.gz", np.zeros((14, 16, 12), np.uint8))
    with pytest.raises(DataError, match="empty"):
        built(folder, allow_overlap=True)


def test_a_class_of_the_test_part_that_training_lacks_is_refused(
    tmp_path: Path, write_cases: Write, write_nifti: Write
) -> None:
    for part in ("train", "val", "test"):
        write_cases(tmp_path / part, 2, shape=(14, 16, 12 + len(part)))
    file = tmp_path / "test" / "labels" / "p1.nii.gz"
    voxels = np.asarray(nibabel.load(file).dataobj).copy()
    voxels[0, 0, 0] = 3
    write_nifti(file, voxels)
    with pytest.raises(DataError, match="class 3") as raised:
        built(tmp_path)
    assert "test/p1" in str(raised.value)


@pytest.mark.parametrize("change", ["nothing", "mask", "compression"])
def test_the_same_image_under_two_names_in_two_parts_is_refused(
    change: str, tmp_path: Path, write_cases: Write, write_nifti: Write
) -> None:
    write_cases(tmp_path / "train", 3)
    write_cases(tmp_path / "test", 1)
    image, mask = (tmp_path / "test" / kind / "p0.nii.gz" for kind in ("images", "labels"))
    if change == "mask":  # a second annotator's
        voxels = np.asarray(nibabel.load(mask).dataobj).copy()
        voxels[0, 0, 0] = 1
        write_nifti(mask, voxels)
    if change == "compression":
        nibabel.save(nibabel.load(image), image.with_suffix(""))
        image.unlink()
    with pytest.raises(DataError, match="are the same image"):
        built(tmp_path)
    built(tmp_path, allow_overlap=True)


def test_cases_of_different_channels_are_refused(tmp_path: Path) -> None:
    def load(record: Record) -> Case:
        shape = (2 if record.id == "b" else 1, 8, 8, 8)
        return Case(
            record.id, np.zeros(shape, np.float32), np.eye(4), np.zeros(shape[1:], np.int16)
        )

    source = Source([Record("a"), Record("b")], load, "data")
    with pytest.raises(DataError, match="2 channels, the first one 1"):
        SegmentationData(source, SegmentationOptions())


def test_a_left_handed_turned_case_is_prepared_in_the_patients_axes(
    tmp_path: Path, write_cases: Write, write_nifti: Write
) -> None:
    data = built(write_cases(tmp_path, 8))
    case = data.case(0)
    first = prepare(case, data.plan)
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(case.image[0], case.affine))
    codes = nibabel.orientations.axcodes2ornt("PSL")
    back = nibabel.orientations.ornt_transform(nibabel.io_orientation(turned.affine), codes)
    other = turned.as_reoriented(back)
    again = prepare(
        Case("b", np.asarray(other.dataobj, np.float32)[None], np.asarray(other.affine)), data.plan
    )
    np.testing.assert_allclose(again.image, first.image, atol=1e-5)
    np.testing.assert_allclose(again.affine, first.affine)


def test_a_volume_smaller_than_the_patch_is_surrounded_by_the_unknown() -> None:
    small = Prepared(np.ones((1, 4, 5, 6), np.float32), np.eye(4), np.ones((4, 5, 6), np.int16))
    found = padded(small, (8, 4, 8))
    assert found.image.shape == (1, 8, 5, 8)
    assert (found.mask == 1).sum() == 120
    assert (found.mask == IGNORE).sum() == 8 * 5 * 8 - 120
    place = np.argwhere(found.image[0] == 1)[0]
    np.testing.assert_array_equal(found.affine @ [*place, 1], [0, 0, 0, 1])


def pool(count: int = 3) -> list[Prepared]:
    random = np.random.default_rng(0)
    cases = []
    for number in range(count):
        mask = np.zeros((20, 20, 20), np.int16)
        mask[5:15, 5:15, 5:15] = 1
        if number == 0:
            mask[10, 10, 10] = 2  # one voxel in all
        image = random.normal(size=(1, 20, 20, 20)).astype(np.float32)
        cases.append(Prepared(image, np.eye(4), mask))
    return cases


def test_a_class_of_one_voxel_is_in_as_many_patches_as_any_other() -> None:
    # pains/medical.md row 16
    patches = Patches(pool(), 3, np.ones((3, 3), bool), (8, 8, 8), 400, foreground=1.0)
    batch = patches.read_batch(range(400), range(400))
    with_it = (batch["mask"] == 2).flatten(1).any(1).float().mean()
    assert 0.4 < with_it < 0.65
    # pains/medical.md row 17: and it lies anywhere in the middle half of them, not in the centre
    places = (batch["mask"] == 2).nonzero()[:, 1:]
    middle = ((places >= 2) & (places <= 5)).all(1)
    assert middle.float().mean() > 0.85  # the others are patches around another class
    assert len(places[middle].unique(dim=0)) > 40


def test_a_patch_is_a_function_of_its_seed_alone() -> None:
    # pains/medical.md row 35
    patches = Patches(pool(), 3, np.ones((3, 3), bool), (8, 8, 8), 10, foreground=0.5)
    whole = patches.read_batch([0, 1, 2, 3], [5, 6, 7, 8])
    pair = patches.read_batch([9, 9], [7, 8])
    for name in ("image", "mask", "draws", "case"):
        assert torch.equal(whole[name][2:], pair[name])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_patches_do_not_depend_on_the_workers_that_cut_them(
    tmp_path: Path, write_cases: Write, workers: int
) -> None:
    # pains/medical.md row 29
    from renshu.feed import make_feed

    folder = write_cases(tmp_path, 8)
    found = []
    for count in (0, workers):
        data = built(folder, patches=12, num_workers=count)
        feed = make_feed(data.train_dataloader(), 1, "train")
        found.append([item[0]["image"].clone() for item in feed.epoch(0, 0, 0)])
        feed.close()
    assert len(found[0]) == len(found[1]) == 6
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_cases_beyond_the_memory_budget_are_made_anew_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # pains/medical.md row 25
    made = []

    def make(number: int) -> Prepared:
        made.append(number)
        return pool(1)[0]

    cache = Cache(make, [100, 100, 100], ["a", "b", "c"], 250, None)
    assert "1 of 3 prepared cases do not fit" in capsys.readouterr().err
    for _ in range(2):
        for number in range(3):
            _ = cache[number]
    assert made == [0, 1, 2, 2]
    cache.close()
    _ = cache[0]
    assert made == [0, 1, 2, 2, 0]


def test_the_disk_cache_depends_on_content_and_plan(tmp_path: Path, write_cases: Write) -> None:
    # pains/medical.md row 26
    folder = write_cases(tmp_path / "d", 8)
    data = built(folder, cache_dir=str(tmp_path / "c"))
    data.setup("fit")
    first = data.patches("train").cases[0]
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "c").iterdir()}
    assert len(files) == 5
    again = built(folder, cache_dir=str(tmp_path / "c"))
    again.setup("fit")
    same = again.patches("train").cases[0]
    np.testing.assert_array_equal(first.image, same.image)
    np.testing.assert_array_equal(first.affine, same.affine)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "c").iterdir()} == files
    changed = built(folder, normalisation="none")
    assert key("x", data.plan) != key("x", changed.plan)
    assert key("x", data.plan) != key("y", data.plan)


def test_a_torn_file_of_the_cache_is_made_anew(tmp_path: Path) -> None:
    # pains/medical.md row 27
    cache = Cache(lambda n: pool(1)[n], [1], ["k"], 0, tmp_path)
    whole = cache[0]
    file = tmp_path / "k.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(cache[0].image, whole.image)
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]
