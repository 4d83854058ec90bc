"""Where pictures come from: every kind of source, and every way in which one can be wrong."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from renshu.errors import ConfigError, DataError
from renshu_tasks.image_classification.data import ImageData, build
from renshu_tasks.image_classification.options import DataOptions, ImageClassificationOptions

Write = Callable[..., Path]


def _build(**options) -> ImageData:
    return build(ImageClassificationOptions(data=DataOptions(**options)))


# ---- image folders


def test_class_folders_give_the_same_pixels_as_the_arrays(write_digits: Write, digits: tuple):
    folder = write_digits(Path("digits"), 0, 300)
    data = _build(path=str(folder))
    assert data.classes == [str(k) for k in range(10)]
    assert (data.channels, data.image_size) == (1, (8, 8))
    for part in ("train", "val", "test"):
        for sample in data.dataset(part):
            name = data.records.ids[int(sample["index"])]
            row = int(Path(name).stem)
            assert np.array_equal(sample["image"].numpy(), digits[0][row])
            assert data.classes[int(sample["label"])] == digits[1][row] == name.split("/")[0]


def test_parts_in_folders_are_kept(write_digits: Write):
    write_digits(Path("d/train"), 0, 200)
    write_digits(Path("d/Validation"), 200, 250)
    write_digits(Path("d/test"), 250, 300)
    data = _build(path="d")
    ids = data.split_ids
    assert {name.split("/")[0] for name in ids["val"]} == {"Validation"}
    assert {name.split("/")[0] for name in ids["test"]} == {"test"}
    assert [len(ids[part]) for part in ("train", "val", "test")] == [200, 50, 50]


def test_a_missing_folder_is_named():
    with pytest.raises(DataError, match=r"not there(.|\n)*nowhere"):
        _build(path="nowhere")


def test_a_folder_with_one_class_is_refused(write_digits: Write):
    write_digits(Path("d"), 0, 1)
    with pytest.raises(DataError, match=r"has 1 class folder\n(.|\n)*two or more"):
        _build(path="d")


def test_a_folder_without_classes_is_refused():
    Path("d").mkdir()
    with pytest.raises(DataError, match="has 0 class folders"):
        _build(path="d")


def test_an_empty_class_folder_is_named(write_digits: Write):
    write_digits(Path("d"), 0, 100)
    Path("d/unicorn").mkdir()
    Path("d/unicorn/notes.txt").write_text("none seen yet")
    with pytest.raises(DataError, match=r"holds no picture(.|\n)*unicorn"):
        _build(path="d")


def test_parts_beside_classes_are_refused_as_unclear(write_digits: Write):
    write_digits(Path("d/train"), 0, 50)
    write_digits(Path("d/test"), 50, 99)
    write_digits(Path("d/extra"), 99, 120)
    with pytest.raises(DataError, match="not clear which folders are parts: extra, test, train"):
        _build(path="d")


def test_a_label_in_the_test_part_that_training_lacks_is_named(write_digits: Write):
    write_digits(Path("d/train"), 0, 200)
    write_digits(Path("d/test"), 200, 250)
    Path("d/test/3").rename("d/test/three")
    with pytest.raises(DataError, match=r"'three' of the test part(.|\n)*test/three/"):
        _build(path="d")


def test_files_that_are_no_pictures_are_left_out_and_said(write_digits: Write):
    write_digits(Path("d"), 0, 100)
    Path("d/3/readme.txt").write_text("hello")
    Path("d/3/.hidden.png").write_bytes(b"x")
    data = _build(path="d")
    assert len(data.records) == 100
    assert "1 file is no picture" in data.describe()


def test_a_truncated_jpeg_among_good_ones_is_named_or_skipped():
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    for row, pixels in enumerate(noise):
        file = Path("d", "cat" if row < 20 else "dog", f"{row}.jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    bad = sorted(Path("d/cat").iterdir())[3]
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(DataError, match=rf"cannot be read(.|\n)*{bad}(.|\n)*on_bad_image skip"):
        _build(path="d")
    data = _build(path="d", on_bad_image="skip")
    assert len(data.records) == 39
    assert bad.relative_to("d").as_posix() not in data.split_ids["train"] + data.split_ids["test"]
    assert f"1 picture cannot be read, left out: {bad}" in data.describe()


def test_all_bad_pictures_are_counted_and_the_first_named(write_digits: Write):
    write_digits(Path("d"), 0, 100)
    files = sorted(Path("d").rglob("*.png"))[:8]
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"8 of 100 pictures") as caught:
        _build(path="d")
    assert [str(file) in str(caught.value) for file in files] == [True] * 5 + [False] * 3


def test_pictures_of_every_kind_can_stand_side_by_side():
    for name in ("a", "b"):
        Path("d", name).mkdir(parents=True)
    grey = Image.fromarray(np.full((12, 12), 100, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(8):
        shade = grey.point(lambda value, number=number: value + number)
        kinds = {
            "grey.png": (shade, {}),
            "deep.png": (Image.fromarray(np.full((12, 12), 30000 + number, np.uint16)), {}),
            "palette.png": (shade.convert("RGB").quantize(4), {}),
            "cmyk.jpg": (shade.convert("RGB").convert("CMYK"), {"quality": 95}),
            "alpha.png": (shade.convert("RGBA"), {}),
            "turned.jpg": (shade.resize((16, 12)), {"exif": exif}),
        }
        for kind, (image, saving) in kinds.items():
            for part in ("a", "b"):
                varied = image if part == "a" else image.transpose(Image.Transpose.ROTATE_180)
                if varied.mode in ("L", "RGBA", "CMYK"):
                    varied.putpixel((0, 0), 0 if varied.mode == "L" else (ord(part), 0, 0, 255))
                elif part == "b":
                    continue
                varied.save(f"d/{part}/{number}{kind}", **saving)
    data = _build(path="d", image_size=12, allow_overlap=True)
    assert data.channels == 3
    for part in ("train", "val", "test"):
        for sample in data.dataset(part):
            middle = sample["image"][:, 6, 6].int()
            assert (middle >= 90).all() and (middle <= 125).all()  # 30000 / 257 = 117


def test_the_same_picture_in_training_and_test_is_refused_with_both_names(write_digits: Write):
    write_digits(Path("d/train"), 0, 200)
    write_digits(Path("d/test"), 200, 250)
    twin = next(Path("d/train/5").iterdir())
    Path("d/test/5/copy.png").write_bytes(twin.read_bytes())
    with pytest.raises(DataError, match=rf"two parts(.|\n)*train/5/{twin.name}.*test/5/copy\.png"):
        _build(path="d")
    assert len(_build(path="d", allow_overlap=True).parts["test"]) == 51


def test_a_link_out_of_the_folder_is_refused_unless_allowed(write_digits: Write, tmp_path: Path):
    # pains/security.md row 15
    write_digits(Path("d"), 0, 100)
    write_digits(Path("d-evil"), 100, 130)
    outside = next(Path("d-evil/3").iterdir())
    Path("d/3/link.png").symlink_to(outside.absolute())
    with pytest.raises(DataError, match=r"leads out of the data folder(.|\n)*d/3/link\.png"):
        _build(path="d")
    assert len(_build(path="d", allow_outside=True).records) == 101
    Path("d/3/link.png").unlink()
    Path("d/evil").symlink_to(Path("d-evil/3").absolute())
    with pytest.raises(DataError, match=r"leads out of the data folder(.|\n)*d/evil"):
        _build(path="d")


def test_two_folders_of_one_part_are_refused(write_digits: Write):
    for name, first in (("train", 0), ("val", 100), ("validation", 150)):
        write_digits(Path("d", name), first, first + 50)
    with pytest.raises(DataError, match="not clear which folders are parts"):
        _build(path="d")


def test_a_class_may_be_called_train(write_digits: Write):
    write_digits(Path("d"), 0, 100)
    Path("d/0").rename("d/train")
    assert "train" in _build(path="d").classes


@pytest.mark.timeout(20)
def test_a_link_to_its_own_folder_ends_in_an_error(write_digits: Write):
    write_digits(Path("d"), 0, 100)
    Path("d/3/loop").symlink_to(Path("d/3").absolute())
    with pytest.raises(DataError, match=r"nested without end(.|\n)*loop"):
        _build(path="d")


def test_hostile_names_are_text(digits: tuple):
    # pains/security.md row 31
    names = ["<img src=x onerror=1>", "=cmd|' !A0", "{{7*7}}", "猫\n\t", "$(touch pwned)", "a b'\""]
    for number, name in enumerate(names):
        Path("d", name).mkdir(parents=True)
        for row in range(number * 20, number * 20 + 20):
            Image.fromarray(digits[0][row, 0]).save(Path("d", name, f"{name}{row}.png"))
    Path("d/{{7*7}}").rename(os.fsdecode(b"d/\xff\xfe"))
    data = _build(path="d")
    expected = sorted([name for name in names if name != "{{7*7}}"] + [os.fsdecode(b"\xff\xfe")])
    assert data.classes == expected
    assert data.sample("train", 0)["labels"][0] in expected
    assert len(data.fingerprint()["train"]["sha256"]) == 64
    assert not Path("pwned").exists() and "49" not in data.classes


# ---- arrays


def test_arrays_of_every_layout_and_type_are_the_same_pictures(digits: tuple):
    images, labels = digits[0][:200], digits[1][:200]
    expected = ImageData.from_arrays(images, labels)
    same = [
        images[:, 0],
        images.transpose(0, 2, 3, 1),
        torch.from_numpy(images),
        images.astype(np.int64),
        images.astype(np.uint16) * 257,
        images / 255.0,
        (images / 255.0).astype(np.float32),
    ]
    for other in same:
        data = ImageData.from_arrays(other, [int(label) for label in labels])
        assert data.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize(
    "images",
    [
        np.full((20, 8, 8), 256),
        np.full((20, 8, 8), -1),
        np.full((20, 8, 8), 1.01),
        np.full((20, 8, 8), np.nan),
        np.zeros((20, 8)),
        np.zeros((0, 8, 8)),
        np.zeros((20, 2, 8, 8)),
        np.zeros((20, 3, 8, 1)),
        np.array(["x"] * 20 * 64).reshape(20, 8, 8),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(images: np.ndarray):
    with pytest.raises(DataError, match="allowed"):
        ImageData.from_arrays(images, ["a", "b"] * 10)


def test_as_many_labels_as_images_are_needed(digits: tuple):
    with pytest.raises(DataError, match="100 images have 99 labels"):
        ImageData.from_arrays(digits[0][:100], digits[1][:99])


def test_npz_files_are_read_whole_or_in_parts(digits: tuple):
    images, numbers = digits[0], np.array([int(label) for label in digits[1]])
    np.savez("whole.npz", images=images[:300], labels=numbers[:300])
    assert len(_build(path="whole.npz").records) == 300
    np.savez(
        "parts.npz",
        train_images=images[:200],
        train_labels=numbers[:200, None],  # as MedMNIST has them
        test_images=images[200:300],
        test_labels=numbers[200:300, None],
    )
    data = _build(path="parts.npz")
    assert len(data.parts["test"]) == 100 and len(data.parts["val"]) == 30
    assert {name.split("/")[0] for name in data.split_ids["test"]} == {"test"}


def test_an_npz_with_a_pickle_in_it_is_refused(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    np.savez("trap.npz", images=np.zeros((4, 8, 8)), labels=np.array([Trap()], dtype=object))
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*trap\.npz"):
        _build(path="trap.npz")
    assert not (tmp_path / "ran").exists()


def test_an_npz_that_promises_more_than_memory_is_refused():
    np.savez("bomb.npz", images=np.zeros((1, 8, 8), np.uint8), labels=np.zeros(1))
    with zipfile.ZipFile("bomb.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = np.lib.format.magic(1, 0)
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1048576, 1048576, 4096), }"
    text = text.ljust(117) + "\n"
    members["images.npy"] = header + len(text).to_bytes(2, "little") + text.encode()
    with zipfile.ZipFile("bomb.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*bomb\.npz"):
        _build(path="bomb.npz")


def test_files_that_are_no_npz_are_refused():
    Path("x.npz").write_bytes(b"PK\3\4 not a zip")
    with pytest.raises(DataError, match=r"x\.npz"):
        _build(path="x.npz")
    np.savez("y.npz", a=np.zeros(3))
    with pytest.raises(DataError, match=r"holds a(.|\n)*images and labels"):
        _build(path="y.npz")
    Path("x.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no kind that can be read(.|\n)*x\.bin"):
        _build(path="x.bin")


# ---- data sets


def test_any_data_set_of_pairs_is_taken(digits: tuple):
    images, numbers = torch.from_numpy(digits[0][:300]), torch.tensor([*map(int, digits[1][:300])])
    pair = (images, numbers)
    from_tensors = ImageData.from_dataset(TensorDataset(*pair))
    pairs = [(Image.fromarray(image[0].numpy()), int(k)) for image, k in zip(*pair, strict=True)]
    from_pairs = ImageData.from_dataset(pairs)
    for part in ("train", "val", "test"):
        assert from_tensors.split_ids[part] == from_pairs.split_ids[part]
        first, second = from_tensors.dataset(part)[3], from_pairs.dataset(part)[3]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["label"], second["label"])


def test_a_data_set_with_its_own_transform_is_refused():
    class Own(list):
        transform = staticmethod(lambda image: image)

    with pytest.raises(ConfigError, match="transform of its own"):
        ImageData.from_dataset(Own([(Image.new("L", (8, 8)), 0)]))


def _write_mnist(root: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """The four files of MNIST's format (LeCun), big-endian, uncompressed."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, rows in (("train", slice(0, 200)), ("t10k", slice(200, 300))):
        some = images[rows]
        head = np.array([2051, len(some), 8, 8], ">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(head + some.tobytes())
        head = np.array([2049, len(some)], ">i4").tobytes()
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(head + labels[rows].tobytes())


def test_data_sets_of_torchvision_are_read_by_name(digits: tuple):
    labels = np.array([*map(int, digits[1])], np.uint8)
    _write_mnist(Path("files"), digits[0][:, 0], labels)
    data = _build(path="torchvision:MNIST", root="files")
    assert len(data.parts["test"]) == 100 and data.classes[3] == "3 - three"
    sample = data.dataset("test")[7]
    assert np.array_equal(sample["image"].numpy(), digits[0][207])
    assert int(sample["label"]) == labels[207]


def test_torchvision_downloads_nothing_unless_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("socket.socket", lambda *a, **k: pytest.fail("a connection was opened"))
    with pytest.raises(DataError, match=r"--data\.download true"):
        _build(path="torchvision:CIFAR10", root="nowhere")
    with pytest.raises(ConfigError, match="did you mean 'CIFAR10'"):
        _build(path="torchvision:CIFAR11")
