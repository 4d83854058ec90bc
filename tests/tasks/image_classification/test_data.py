"""ImageData: what reaches training, what a loader gives, what is known of the data."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from renshu import messages
from renshu.errors import ConfigError, DataError
from renshu.feed import make_feed
from renshu_tasks.image_classification import verify
from renshu_tasks.image_classification.data import ImageData, build
from renshu_tasks.image_classification.options import DataOptions, ImageClassificationOptions

Write = Callable[..., Path]


@pytest.fixture
def data() -> ImageData:
    return build(ImageClassificationOptions())


def _rows(loader) -> list[int]:
    return [int(row) for batch in loader for row in batch["index"]]


# ---- what reaches training


def test_without_a_path_the_digits_are_split_as_scikit_learn_splits_them(data: ImageData):
    from sklearn.model_selection import train_test_split

    labels = [int(label[0]) for label in data.records.labels]
    _, test = train_test_split(range(1797), test_size=0.2, stratify=labels, random_state=0)
    assert sorted(_rows(data.test_dataloader())) == sorted(test)
    assert len(data.parts["val"]) == 216  # 0.15 × 1437, rounded up


def test_no_test_row_reaches_training_or_validation(data: ImageData):
    test = set(data.parts["test"].tolist())
    assert not test & set(_rows(data.train_dataloader()))
    assert sorted(_rows(data.val_dataloader())) == data.parts["val"].tolist()
    assert not test & set(_rows(data.val_dataloader()))


def test_nothing_that_is_fitted_depends_on_validation_or_test(digits: tuple):
    images, labels = digits[0].copy(), list(digits[1])
    before = ImageData.from_arrays(images, labels)
    random = np.random.default_rng(0)
    for part in ("val", "test"):
        images[before.parts[part]] = random.integers(200, 256, (len(before.parts[part]), 1, 8, 8))
    after = ImageData.from_arrays(images, labels)
    assert after.parts["test"].tolist() == before.parts["test"].tolist()
    assert (after.mean, after.std) == (before.mean, before.std)
    assert torch.equal(after.class_weights(), before.class_weights())
    assert after.fingerprint()["train"] == before.fingerprint()["train"]
    assert after.fingerprint()["test"] != before.fingerprint()["test"]


class Spy(Dataset):
    """Pictures of a data set that writes down which rows were read."""

    def __init__(self, digits: tuple, count: int):
        self.images, self.targets = digits[0][:count], [int(k) for k in digits[1][:count]]
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple:
        self.seen.append(row)
        return Image.fromarray(self.images[row, 0]), self.targets[row]


def test_training_and_validation_read_no_test_row(digits: tuple):
    spy = Spy(digits, 400)
    data = ImageData.from_dataset(spy, in_memory_mb=0, num_workers=0)
    test = set(data.parts["test"].tolist())
    spy.seen.clear()
    data._normalisation()
    data.class_weights(), data.describe(), data.defaults
    assert set(spy.seen) == set(data.parts["train"].tolist())
    spy.seen.clear()
    _rows(data.train_dataloader())
    _rows(data.val_dataloader())
    assert spy.seen and not test & set(spy.seen)
    _rows(data.test_dataloader())
    assert test <= set(spy.seen)


def test_mean_and_deviation_are_those_of_the_training_pixels(digits: tuple):
    colour = np.repeat(digits[0], 3, axis=1) // np.array([1, 2, 3]).reshape(3, 1, 1)
    data = ImageData.from_arrays(colour.astype(np.uint8), digits[1])
    pixels = colour[data.parts["train"]] / 255
    assert np.allclose(data.mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(data.std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_given_mean_and_deviation_are_used_or_refused(digits: tuple):
    data = ImageData.from_arrays(*digits, mean=[0.5], std=[0.25])
    assert (data.mean, data.std) == ([0.5], [0.25])
    with pytest.raises(ConfigError, match=r"data\.mean(.|\n)*1 numbers"):
        ImageData.from_arrays(*digits, mean=[0.5, 0.5, 0.5])
    with pytest.raises(ConfigError, match=r"data\.std"):
        ImageData.from_arrays(*digits, std=[0.0])


# ---- loaders


def test_a_batch_has_pictures_labels_rows_and_in_training_seeds(data: ImageData):
    batch = next(iter(data.train_dataloader()))
    size = data.batch_size
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    assert shapes == {
        "image": ((size, 1, 8, 8), torch.uint8),
        "label": ((size,), torch.int64),
        "index": ((size,), torch.int64),
        "seed": ((size,), torch.int64),
    }
    assert "seed" not in next(iter(data.val_dataloader()))
    assert len(set(batch["seed"].tolist())) == size


@pytest.mark.parametrize("in_memory_mb", [0, 100])
def test_pictures_in_memory_and_on_disk_are_the_same(write_digits: Write, in_memory_mb: int):
    folder = write_digits(Path("d"), 0, 200)
    data = ImageData.from_folder(folder, in_memory_mb=in_memory_mb, num_workers=0, batch_size=32)
    for batch in data.val_dataloader():
        for image, label, row in zip(batch["image"], batch["label"], batch["index"], strict=True):
            file = folder / data.records.ids[int(row)]
            assert np.array_equal(image[0].numpy(), np.asarray(Image.open(file)))
            assert data.classes[int(label)] == file.parent.name
    assert {"image", "label", "index", "seed"} == set(next(iter(data.train_dataloader())))


def test_one_sample_and_a_batch_are_read_alike(data: ImageData):
    val = data.dataset("val")
    batch = val.__getitems__([3, 1, 4])
    for number, place in ((3, 0), (1, 1), (4, 2)):
        for key, value in val[number].items():
            assert torch.equal(value, batch[key][place])


def test_workers_can_read_the_pictures(write_digits: Write):
    data = ImageData.from_folder(write_digits(Path("d"), 0, 100), in_memory_mb=0, num_workers=1)
    assert sorted(_rows(data.val_dataloader())) == data.parts["val"].tolist()


def test_balanced_sampling_draws_each_class_equally_often(digits: tuple):
    keep = [row for row, label in enumerate(digits[1]) if label != "0" or row % 10 == 0]
    labels = [digits[1][row] for row in keep]
    data = ImageData.from_arrays(digits[0][keep], labels, sampler="balanced", batch_size=50)
    torch.manual_seed(0)
    drawn: Counter = Counter()
    for _ in range(5):
        drawn.update(int(label) for batch in data.train_dataloader() for label in batch["label"])
    count, total = len(data.classes), sum(drawn.values())
    # three standard deviations of a binomial count
    slack = 3 * (total * (1 / count) * (1 - 1 / count)) ** 0.5
    assert all(abs(drawn[k] - total / count) < slack for k in range(count))


def test_no_training_batch_has_a_single_picture(digits: tuple):
    count = ImageData.from_arrays(digits[0][:200], digits[1][:200]).parts["train"].size
    data = ImageData.from_arrays(digits[0][:200], digits[1][:200], batch_size=count - 1)
    assert [len(batch["label"]) for batch in data.train_dataloader()] == [count - 1]


@pytest.mark.parametrize("sampler", ["none", "balanced"])
@pytest.mark.parametrize("in_memory_mb", [0, 100])
def test_batches_repeat_from_any_position(write_digits: Write, sampler: str, in_memory_mb: int):
    folder = write_digits(Path("d"), 0, 200)
    options = {"sampler": sampler, "in_memory_mb": in_memory_mb, "batch_size": 16}

    def batches(consumed: int, state: dict | None = None):
        loader = ImageData.from_folder(folder, num_workers=0, **options).train_dataloader()
        feed = make_feed(loader, seed=7, name="train")
        if state is not None:
            feed.load_state_dict(state)
        for batch, _ in feed.epoch(2, 16 * consumed, consumed):
            yield batch, feed.state_dict()

    whole = list(batches(0))
    rest = list(batches(3, whole[2][1]))
    assert len(rest) == len(whole) - 3 > 3
    for (first, _), (again, _) in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(first[key], again[key]) for key in first)
    assert len({int(seed) for batch, _ in whole for seed in batch["seed"]}) == sum(
        len(batch["seed"]) for batch, _ in whole
    )


def test_seeds_of_pictures_in_memory_do_not_depend_on_the_batch_size(
    digits: tuple, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("renshu.messages._said", set())

    def seeds(batch_size: int) -> dict[int, int]:
        data = ImageData.from_arrays(*digits, batch_size=batch_size)
        feed = make_feed(data.train_dataloader(), seed=7, name="train")
        batches = [batch for batch, _ in feed.epoch(1, 0, 0)]
        rows, drawn = (torch.cat([b[key] for b in batches]).tolist() for key in ("index", "seed"))
        return dict(zip(rows, drawn, strict=True))

    assert seeds(64) == seeds(50)
    assert "reads whole batches" not in capfd.readouterr().err


# ---- several labels


def test_several_labels_are_a_row_of_zeros_and_ones(digits: tuple):
    numbers = np.array([int(label) for label in digits[1]])
    truth = np.stack([numbers % 2 == 0, numbers > 4, numbers == 9], axis=1).astype(int)
    data = ImageData.from_arrays(digits[0], truth, multi_label=True, classes=["even", "large", "9"])
    assert data.classes == ["even", "large", "9"]
    batch = next(iter(data.val_dataloader()))
    assert batch["label"].dtype == torch.float32
    assert np.array_equal(batch["label"].numpy(), truth[batch["index"].numpy()])
    train = truth[data.parts["train"]]
    expected = (len(train) - train.sum(0)) / train.sum(0)
    assert np.allclose(data.class_weights().numpy(), expected)


def test_several_labels_need_to_be_asked_for(digits: tuple):
    with pytest.raises(DataError, match=r"2 labels(.|\n)*--data\.multi_label true"):
        ImageData.from_arrays(digits[0][:20], [("a", "b"), ("a",)] * 10)


# ---- classes


def test_class_weights_are_the_inverse_of_the_frequency(digits: tuple):
    keep = [row for row, label in enumerate(digits[1]) if label != "7" or row % 5 == 0]
    labels = [digits[1][row] for row in keep]
    data = ImageData.from_arrays(digits[0][keep], labels)
    from sklearn.utils.class_weight import compute_class_weight

    train = np.array([labels[row] for row in data.parts["train"]])
    expected = compute_class_weight("balanced", classes=np.array(data.classes), y=train)
    assert np.allclose(data.class_weights().numpy(), expected)
    counts = data.class_counts["train"]
    assert counts == Counter(train.tolist())
    assert f"imbalance in training: {max(counts.values()) / min(counts.values()):.1f}" in (
        data.describe()
    )


def test_the_order_of_classes_can_be_given(digits: tuple):
    order = [str(k) for k in reversed(range(10))]
    data = ImageData.from_arrays(*digits)
    assert data.classes == order[::-1]
    options = DataOptions(classes=order)
    again = ImageData(data.records, options)
    assert again.classes == order
    assert again.labels.tolist() == [9 - int(label) for label in digits[1]]


def test_numbers_as_names_are_ordered_by_value(digits: tuple):
    labels = np.arange(len(digits[0])) % 12
    data = ImageData.from_arrays(digits[0], labels)
    assert data.classes == [str(k) for k in range(12)]
    assert data.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("label", [None, float("nan"), 0.5, np.float32("inf")])
def test_a_label_that_is_no_name_is_refused(digits: tuple, label: object):
    with pytest.raises(DataError, match="not a whole number or a name"):
        ImageData.from_arrays(digits[0][:40], [0.0, 1.0] * 19 + [1.0, label])
    assert ImageData.from_arrays(digits[0][:40], np.array([0.0, 1.0] * 20)).classes == ["0", "1"]


def test_unknown_and_missing_classes_are_named(digits: tuple):
    records = ImageData.from_arrays(*digits).records
    with pytest.raises(DataError, match="training part differ in 9"):
        ImageData(records, DataOptions(classes=[str(k) for k in range(9)]))
    with pytest.raises(DataError, match="training part differ in 10"):
        ImageData(records, DataOptions(classes=[str(k) for k in range(11)]))
    with pytest.raises(DataError, match="training part differ in 4"):
        ImageData(records, DataOptions(classes=[*map(str, range(10)), "4"]))


def test_one_class_alone_is_refused(digits: tuple):
    with pytest.raises(DataError, match="only one class"):
        ImageData.from_arrays(digits[0][:20], ["a"] * 20)


# ---- shape


def test_size_and_channels_can_be_chosen(digits: tuple):
    data = ImageData.from_arrays(*digits, image_size=16, channels=3)
    image = data.sample("train", 0)["image"]
    assert image.shape == (3, 16, 16) and torch.equal(image[0], image[2])
    row = data.parts["train"][0]
    expected = Image.fromarray(digits[0][row, 0]).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(image[0].numpy(), np.array(expected))


def test_colour_arrays_become_grey_as_pil_makes_them():
    colour = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    data = ImageData.from_arrays(colour, ["a", "b"] * 20, channels=1)
    sample = data.sample("val", 0)
    expected = Image.fromarray(colour[int(sample["id"])]).convert("L")
    assert np.array_equal(sample["image"][0].numpy(), np.array(expected))


def test_four_channels_stay_as_they_are_or_become_colours():
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 6), dtype=np.uint8)
    data = ImageData.from_arrays(images, ["a", "b"] * 20)
    sample = data.sample("val", 0)
    assert data.channels == 4
    assert np.array_equal(sample["image"].numpy(), images[int(sample["id"])])
    with pytest.raises(DataError, match=r"4 channels cannot be scaled"):
        ImageData.from_arrays(images, ["a", "b"] * 20, image_size=12)
    assert ImageData.from_arrays(images, ["a", "b"] * 20, image_size=12, channels=3).channels == 3


def test_wide_arrays_are_cut_around_the_centre():
    wide = np.zeros((40, 8, 24), np.uint8)
    wide[:, :, 8:16] = np.arange(40).reshape(-1, 1, 1) + 100
    data = ImageData.from_arrays(wide, ["a", "b"] * 20, image_size=8)
    sample = data.sample("test", 0)
    assert (sample["image"] == 100 + int(sample["id"])).all()


def test_pictures_of_different_size_are_cut_to_the_usual_one():
    for name, shade in (("a", 50), ("b", 200)):
        Path("d", name).mkdir(parents=True)
        for k in range(8):
            Image.new("L", (30 + k, 40), shade + k).save(f"d/{name}/{k}.png")
    data = ImageData.from_folder("d")
    assert data.image_size == (224, 224) and "224 pixels" in data.describe()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(("batch_size", value, "1 or more") for value in (0, -1)),
        ("num_workers", -1, "0 or more"),
        *(("max_pixels", value, "1 or more") for value in (0, -5)),
        ("in_memory_mb", -1, "0 or more"),
        *(("val_share", value, "above 0 and below 1") for value in (0, 1, -0.1, float("nan"))),
        *(("test_share", value, "from 0 .* to below 1") for value in (-0.1, 1, float("nan"))),
        *(("folds", value, "2 or more") for value in (1, 0, -3)),
        ("fold", -1, "0 or more"),
        ("image_size", 0, "1 or more"),
        ("split_seed", -1, "0 to 4294967295"),
    ],
)
def test_a_number_out_of_range_is_refused_with_its_key(name: str, value: float, allowed: str):
    with pytest.raises(ConfigError, match=rf"data\.{name}\b(.|\n)*{allowed}"):
        DataOptions(**{name: value})


def test_the_part_left_out_is_one_of_the_folds():
    with pytest.raises(ConfigError, match=r"3 is out(.|\n)*data\.fold\b(.|\n)*0 to 2"):
        DataOptions(folds=3, fold=3)
    assert DataOptions(folds=3, fold=2, num_workers=0, in_memory_mb=0, test_share=0).fold == 2


def test_a_batch_size_of_zero_never_means_the_default(data: ImageData):
    with pytest.raises(ConfigError, match=r"data\.batch_size"):
        data.batch_size = 0
    data.batch_size = 24
    assert data.batch_size == data.train_dataloader().batch_size == 24


def test_what_was_found_is_said(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(messages, "_said", set())
    build(ImageClassificationOptions())
    said = capsys.readouterr().err
    assert "1797 pictures (train 1221, val 216, test 360)" in said
    assert "pictures 8×8, 1 channel; 10 classes" in said
    assert "imbalance" not in said  # 1.1 is none
    assert "defaults for" in said and "batch" in said


# ---- identity


def test_the_fingerprint_tells_content_name_and_label_apart(write_digits: Write):
    folder = write_digits(Path("d"), 0, 100)
    first = ImageData.from_folder(folder).fingerprint()
    again = ImageData.from_folder(folder).fingerprint()
    assert first == again and json.loads(json.dumps(first)) == first
    files = [folder / name for name in first["train"]["ids"]]
    assert first["train"]["files"] == len(files)
    assert first["train"]["bytes"] == sum(file.stat().st_size for file in files)
    lines = [
        "\0".join(
            [
                file.relative_to(folder).as_posix(),
                str(file.stat().st_size),
                hashlib.sha256(file.read_bytes()).hexdigest(),
                file.parent.name,
            ]
        )
        for file in sorted(files)
    ]
    expected = hashlib.sha256(b"".join(line.encode() + b"\n" for line in lines)).hexdigest()
    assert first["train"]["sha256"] == expected
    image = np.array(Image.open(files[0]))
    image[0, 0] ^= 1
    Image.fromarray(image).save(files[0])
    changed = ImageData.from_folder(folder).fingerprint()
    assert changed["train"]["sha256"] != first["train"]["sha256"]
    assert changed["test"] == first["test"]


def test_the_parts_ids_are_disjoint_and_whole(data: ImageData):
    ids = data.split_ids
    everything = ids["train"] + ids["val"] + ids["test"]
    assert sorted(everything, key=int) == [str(row) for row in range(1797)]


def test_the_same_array_in_two_parts_is_refused(digits: tuple):
    images = digits[0][:100].copy()
    images[99] = images[0]
    parts = ["train"] * 80 + ["test"] * 20
    with pytest.raises(DataError, match=r"0 \((train|val)\) = 99 \(test\)"):
        ImageData.from_arrays(images, digits[1][:99] + digits[1][:1], parts=parts)


def test_a_second_run_decodes_no_picture_again(
    write_digits: Write, monkeypatch: pytest.MonkeyPatch
):
    folder = write_digits(Path("d"), 0, 100)
    first = ImageData.from_folder(folder, in_memory_mb=0, mean=[0.5], std=[0.5])
    changed = folder / first.split_ids["train"][0]
    changed.write_bytes(changed.read_bytes()[:-20])  # cut off, time stamp or not
    decoded = []
    monkeypatch.setattr(
        "renshu_tasks.image_classification.readers._decoded",
        lambda raw, name, *a: decoded.append(name) or Image.new("L", (8, 8)),
    )
    ImageData.from_folder(folder, in_memory_mb=0, mean=[0.5], std=[0.5])
    assert decoded == [str(changed)]


def test_a_damaged_or_unwritable_cache_changes_nothing(
    write_digits: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = write_digits(Path("d"), 0, 100)
    first = ImageData.from_folder(folder).fingerprint()
    for text in ("", "[]", '{"a": 1}', '{"a": ["x", 2, 3]}', "null"):
        known = verify._Known(str(folder), DataOptions().max_pixels)
        known.file.write_text(text)
        assert ImageData.from_folder(folder).fingerprint() == first
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ImageData.from_folder(folder).fingerprint() == first


# ---- the whole thing


def test_a_part_that_is_not_there_is_refused(digits: tuple):
    data = ImageData.from_arrays(*digits, test_share=0.0)
    with pytest.raises(DataError, match=r"no test part(.|\n)*--data\.test_share"):
        data.test_dataloader()
    with pytest.raises(DataError, match=r"no vla part(.|\n)*did you mean 'val'"):
        data.dataset("vla")
    assert sorted(_rows(data.predict_dataloader())) == data.parts["val"].tolist()


def test_photographs_are_read_split_and_measured(shared_data: Path):
    data = ImageData.from_folder(shared_data / "cifar10")
    assert (data.channels, data.image_size, len(data.classes)) == (3, (32, 32), 10)
    assert {part: len(rows) for part, rows in data.parts.items()} == {
        "train": 5100,
        "val": 900,
        "test": 1500,
    }
    # the figures that are published for the whole of CIFAR-10
    assert np.allclose(data.mean, [0.4914, 0.4822, 0.4465], atol=0.004)
    assert np.allclose(data.std, [0.2470, 0.2435, 0.2616], atol=0.004)
