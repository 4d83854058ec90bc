"""As a user does it: check, train, predict, evaluate, export; in 3-D, in 2-D, and from DICOM."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from renshu.cli.main import main
from renshu_tasks.segmentation import inference
from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.defaults import Device
from renshu_tasks.segmentation.evaluation import calibrate
from renshu_tasks.segmentation.module import Segmenter, build
from renshu_tasks.segmentation.module import callbacks as module_callbacks
from renshu_tasks.segmentation.options import (
    DataOptions,
    ModelOptions,
    SegmentationOptions,
    TrainingOptions,
)
from renshu_tasks.segmentation.prepare import prepare
from renshu_tasks.segmentation.sources import find

Write = Callable[..., Path]
Scan = Callable[..., tuple[np.ndarray, np.ndarray]]
TINY = ["--model.width", "8", "--model.depth", "3", "--trainer.accelerator", "cpu"]
TINY += ["--trainer.seed", "1", "--training.augment", "standard"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scan: Scan) -> Path:
    """A trained run on eight small cases, and the cases beside it."""
    folder = tmp_path_factory.mktemp("run")
    for number in range(8):
        image, mask = scan(number)
        for kind, voxels in (("images", image), ("labels", mask)):
            (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
            file = folder / "data" / kind / f"p{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 2, 1.0])), file)
    arguments = ["train", "segmentation", "--data.path", str(folder / "data"), *TINY]
    arguments += ["--trainer.max_epochs", "4", "--data.patches", "50", "--trainer.run", "one"]
    arguments += ["--training.learning_rate", "0.01", "--model.fold", "1"]
    arguments += ["--trainer.default_root_dir", str(folder), "--training.ema_decay", "0.8"]
    assert main(arguments) == 0
    return folder / "runs" / "one"


def test_a_run_learns_and_leaves_plan_figures_and_report(run: Path) -> None:
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["dice"]["value"] > 0.8
    assert metrics["dice"]["used"] == 4
    assert metrics["calibration"]["ece"] < 0.2
    assert len(metrics["coverage"]) == 2
    plan = (run / "plan.md").read_text()
    assert "**spacing**: 1×1×2 mm" in plan
    for file in ("report.html", "model_card.md"):
        assert "not a medical device" in (run / file).read_text()
    columns = (run / "metrics.csv").read_text().splitlines()[0]
    assert "val_patch_dice" in columns  # pains/medical.md row 17: two names, never mixed
    assert "val_full_case_dice" in columns


def test_predicted_masks_lie_in_the_space_of_their_input(
    run: Path, tmp_path: Path, scan: Scan
) -> None:
    # pains/medical.md rows 8 and 10
    image, truth = scan(99)
    affine = np.array([[0, 0.8, -0.6, 5], [-1, 0, 0, 2], [0, 0.6, 0.8, -9], [0, 0, 0, 1.0]])
    affine[:3, 2] *= 2
    source = tmp_path / "new.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image, affine), source)
    out, masks = tmp_path / "table.csv", tmp_path / "masks"
    arguments = ["predict", str(run), str(source), "--out", str(out)]
    assert main([*arguments, "--data.masks_dir", str(masks)]) == 0
    with out.open() as file:
        row = next(csv.DictReader(file))
    written = nibabel.load(row["mask"])
    np.testing.assert_allclose(written.affine, affine, atol=1e-3)
    predicted = np.asarray(written.dataobj)
    assert predicted.shape == truth.shape
    both = 2 * ((predicted > 0) & (truth > 0)).sum() / ((predicted > 0).sum() + (truth > 0).sum())
    assert both > 0.6  # turned by 37 degrees: it saw none such in training
    assert float(row["ml_class 1"]) == pytest.approx((predicted == 1).sum() * 2 / 1000, abs=1e-3)


def test_a_mask_never_takes_the_place_of_a_file(
    run: Path, tmp_path: Path, scan: Scan, capsys: pytest.CaptureFixture[str]
) -> None:
    free, taken = tmp_path / "a.nii.gz", tmp_path / "scans" / "b.nii.gz"
    taken.parent.mkdir()
    for file in (free, taken):
        nibabel.save(nibabel.Nifti1Image(scan(99)[0], np.eye(4)), file)
    truth = tmp_path / "labels" / "b.nii.gz"
    truth.parent.mkdir()
    truth.write_bytes(b"drawn by hand")
    stored = taken.read_bytes()
    arguments = ["predict", str(run), str(free), str(taken), "--out", str(tmp_path / "table.csv")]
    for folder, said in ((taken.parent, "an input"), (truth.parent, "a file that is there")):
        assert main([*arguments, "--data.masks_dir", str(folder)]) == 2
        assert f"would overwrite {said}" in capsys.readouterr().err
        assert [file.name for file in folder.iterdir()] == ["b.nii.gz"]  # not even a's mask
    assert (taken.read_bytes(), truth.read_bytes()) == (stored, b"drawn by hand")


def test_evaluating_again_gives_the_same_figures_on_whatever_device(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A GPU's plan has other sizes, and 1 MiB is too little for any: the run's plan counts.
    tiny = Device("cuda", "NVIDIA T4", 2**20)
    monkeypatch.setattr("renshu_tasks.segmentation.data.describe_device", lambda: tiny)
    before = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert main(["evaluate", str(run)]) == 0
    after = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert before == after
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data.patch", "[8, 8, 8]"]) == 2
    assert "the run was trained with" in capsys.readouterr().err


@pytest.mark.slow
def test_the_exported_folder_answers_like_the_run(run: Path, tmp_path: Path) -> None:
    # pains/medical.md row 38
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert told["largest_difference"] <= 1e-4
    text = (tmp_path / "out" / "model.py").read_text()
    assert "renshu" not in text
    assert told["metric"]["dice"][0] > 0.8  # of whole masks, on the grid of the scans
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["purpose"] == "Research use, not a medical device."


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data.path", "nowhere"], "the data are not there"),
        (["--data.patch", "[7, 7, 7]"], "multiples of"),
        (["--model.name", "unett"], "did you mean 'unet'"),
        (["--training.mirror", "[5]"], "out of range"),
        (["--data.fold", "3", "--data.folds", "3"], "0 to 2"),
        (["--data.classes", '["background", "a"]'], "never named"),
        (["--data.val_share", "0"], "always a validation part"),
        (["--training.augment", "strong"], "augment"),
    ],
)
def test_wrong_options_are_told_in_one_message(
    run: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [] if "--data.path" in flags else ["--data.path", str(run.parents[1] / "data")]
    assert main(["check-data", "segmentation", *data, *flags]) == 2 or "mirror" in flags[0]
    assert main(["train", "segmentation", *data, *TINY, *flags]) == 2
    assert said in capsys.readouterr().err


def test_two_trainings_of_one_seed_are_equal(tmp_path: Path, write_cases: Write) -> None:
    # pains/medical.md row 35
    from renshu import Trainer
    from renshu.seeds import seed_everything

    folder = write_cases(tmp_path, 8)
    found = []
    for _ in range(2):
        seed_everything(3, verbose=False)
        options = SegmentationOptions(
            data=DataOptions(path=str(folder), patches=8), model=ModelOptions(depth=3, width=4)
        )
        data = SegmentationData(find(options.data), options)
        module = build(options, data)
        Trainer(
            max_steps=4, max_epochs=-1, accelerator="cpu", barebones=True, limit_val_batches=0,
            default_root_dir=str(tmp_path),
        ).fit(module, datamodule=data)  # fmt: skip
        found.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
    assert torch.equal(*found)


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, write_cases: Write
) -> None:
    # pains/medical.md row 34
    import os
    import signal

    from renshu import Callback, Trainer

    class Cut(Callback):
        def on_train_batch_end(self, trainer, module, *_) -> None:
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGINT)

    folder = write_cases(tmp_path / "d", 8)

    def fit(run: str, ckpt_path: str | None, *callbacks: Callback) -> tuple[Trainer, Segmenter]:
        options = SegmentationOptions(
            data=DataOptions(path=str(folder), patches=8),
            model=ModelOptions(depth=3, width=4),
            training=TrainingOptions(full_cases=0),
        )
        device = Device("cpu", "CPU", (8 if ckpt_path else 16) * 2**20)  # less is free by then
        data = SegmentationData(find(options.data), options, device)
        if ckpt_path:
            data.follow(tmp_path / "runs" / run)
        torch.manual_seed(0)
        module = build(options, data)
        trainer = Trainer(
            max_epochs=3, run=run, seed=1, default_root_dir=str(tmp_path), accelerator="cpu",
            callbacks=[*module_callbacks(options), *callbacks], enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return trainer, module

    _, whole = fit("whole", None)
    trainer, _ = fit("parts", None, Cut())
    assert trainer.interrupted
    assert trainer.global_step == 5  # of 12: in the middle of the second epoch
    trainer, again = fit("parts", "last")
    assert trainer.global_step == 12
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_two_classes_are_decided_at_the_threshold(tmp_path: Path, write_cases: Write) -> None:
    folder = write_cases(tmp_path, 8)
    options = SegmentationOptions(
        data=DataOptions(path=str(folder), label_map={"0": 0, "1": 1, "2": 1}),
        model=ModelOptions(depth=3, width=4),
        training=TrainingOptions(calibrate=False),
    )
    data = SegmentationData(find(options.data), options)
    assert data.classes == ["background", "class 1"]
    module: Segmenter = build(options, data).eval()
    module.threshold.fill_(0.3)
    module.temperature.fill_(1.7)
    image = torch.randn(1, 1, *data.plan.patch)
    with torch.no_grad():
        chosen = module.decisive(image).argmax(1)
        expected = module.probabilities(image)[:, 1] >= 0.3
    assert torch.equal(chosen.bool(), expected)

    # "dice": the best on the whole validation cases, on the grid of the network
    module.temperature.fill_(1.0)
    calibrate(module, data)
    threshold = float(module.threshold)
    hits = {one: [0, 0] for one in (threshold, 0.2, 0.4, 0.5, 0.6, 0.8)}
    for case in data.cases("val"):
        ready = prepare(case, data.plan)
        logits = inference.logits(module, ready.image, data.plan.patch, 0.5, 2)
        for one, counted in hits.items():
            found, truth = logits.softmax(0)[1].numpy() >= one, ready.mask == 1
            counted[0] += 2 * int((found & truth).sum())
            counted[1] += int(found.sum() + truth.sum())
    dice = {one: both / total for one, (both, total) in hits.items()}
    assert dice[threshold] == max(dice.values())


@pytest.mark.slow
def test_pictures_in_colour_are_segmented(tmp_path: Path, scan: Scan) -> None:
    for number in range(8):
        image, mask = scan(number, (64, 72))
        for kind in ("images", "masks"):
            (tmp_path / "d" / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.repeat((image * 10).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(pixels).save(tmp_path / "d" / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "d" / "masks" / f"{number}.png")
    arguments = ["train", "segmentation", "--data.path", str(tmp_path / "d"), *TINY]
    arguments += ["--data.picture_spacing", "[0.5, 0.5]", "--data.patches", "40"]
    arguments += ["--model.fold", "1", "--training.learning_rate", "0.01"]
    arguments += ["--trainer.max_epochs", "6", "--trainer.default_root_dir", str(tmp_path)]
    assert main([*arguments, "--trainer.run", "flat"]) == 0
    folder = tmp_path / "runs" / "flat" / "evaluation" / "test"
    box = json.loads((folder / "metrics.json").read_text())["per_class"][1]
    assert box["dice"]["value"] > 0.7
    with Image.open(next((folder / "masks").glob("*.png"))) as mask:
        assert mask.size == (72, 64)


@pytest.mark.slow
def test_no_tag_of_a_patient_is_in_any_output(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # point 10: DICOM in, and every file that is written is searched
    import pydicom

    told = {
        "PatientName": "Zyxwv^Quirin", "PatientID": "ID-77123-X", "AccessionNumber": "ACC998877",
        "InstitutionName": "Hospital Nowhere", "PatientBirthDate": "19010203",
    }  # fmt: skip
    source = shared("dicom_study") / "11_HCropVolume"
    for number in range(4):
        folder = tmp_path / "d" / "images" / ("zyxwv_quirin" if number == 3 else f"s{number}")
        folder.mkdir(parents=True)
        for file in sorted(source.iterdir()):
            dataset = pydicom.dcmread(file)
            for name, value in told.items():
                setattr(dataset, name, value)
            dataset.PixelData = np.roll(dataset.pixel_array, number, 0).tobytes()
            dataset.save_as(folder / file.name)
        voxels = np.zeros((34, 50, 40), np.uint8)
        voxels[10:20, 20:30, 10:30] = 1
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[2, 3] = 1
        labels = tmp_path / "d" / "labels"
        labels.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), labels / f"{folder.name}.nii.gz")
    arguments = ["train", "segmentation", "--data.path", str(tmp_path / "d"), *TINY]
    arguments += ["--data.patches", "2", "--trainer.max_epochs", "1", "--trainer.run", "dicom"]
    assert main([*arguments, "--trainer.default_root_dir", str(tmp_path)]) == 0
    output = capsys.readouterr()
    texts = {"terminal": (output.out + output.err).encode()}
    for file in (tmp_path / "runs").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            texts[str(file)] = data if file.suffix != ".gz" else _unpacked(data)
    parts = ("zyxwv", "quirin", "id-77123-x", "acc998877", "hospital nowhere", "19010203")
    for where, text in texts.items():
        for part in parts:
            assert part.encode() not in text.lower(), f"{part} in {where}"


def _unpacked(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data)


@pytest.mark.nightly
def test_real_patients_are_segmented(shared: Callable[[str], Path], tmp_path: Path) -> None:
    source = shared("hippocampus")
    for kind in ("images", "labels"):
        (tmp_path / "d" / kind).mkdir(parents=True)
        for file in sorted((source / kind).iterdir())[:40]:
            shutil.copy(file, tmp_path / "d" / kind)
    arguments = ["train", "segmentation", "--data.path", str(tmp_path / "d"), "--trainer.seed", "0"]
    arguments += ["--trainer.max_epochs", "4", "--data.patches", "200", "--trainer.run", "h"]
    assert main([*arguments, "--trainer.default_root_dir", str(tmp_path)]) == 0
    file = tmp_path / "runs" / "h" / "evaluation" / "test" / "metrics.json"
    assert json.loads(file.read_text())["dice"]["value"] > 0.75
