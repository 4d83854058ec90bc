"""Plans: what follows from which data and device; all of it can be overridden, and is data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.defaults import Device, resolve
from renshu_tasks.segmentation.fingerprint import Facts, summary, warnings
from renshu_tasks.segmentation.options import DataOptions, ModelOptions, SegmentationOptions
from renshu_tasks.segmentation.plan import Plan, read_plan, read_run_plan
from renshu_tasks.segmentation.planning import make_plan, step_bytes
from renshu_tasks.segmentation.records import Source

A100 = Device("cuda", "NVIDIA A100-SXM4-40GB", 40 * 2**30, 8)
CPU = Device("cpu", "CPU", 16 * 2**30, 8)


def facts(shape: Any = (40, 50, 40), spacing: Any = (1.0, 1.0, 1.0), **more: Any) -> Facts:
    values: dict[str, Any] = {
        "id": "a", "patient": "a", "shape": shape, "spacing": spacing, "orientation": "RAS",
        "kind": "nifti", "channels": ((0.0, 50.0, 100.0),), "zeros": 0.0,
        "foreground": np.linspace(10, 20, 100, dtype=np.float32)[None],
        "voxels": {0: 10**5, 1: 5000}, "smallest": {1: 5000}, "size": 1, "sha256": "",
        "voxels_sha256": "",
    }  # fmt: skip
    return Facts(**values | more)


def plan(one: Facts, device: Device = A100, **options: Any) -> Plan:
    chosen = SegmentationOptions(
        data=DataOptions(**options.pop("data", {})), model=ModelOptions(**options.pop("model", {}))
    )
    source = Source([], lambda record: None, "data", **options)  # type: ignore[arg-type,return-value]
    return make_plan([one, one], ["background", "a"], source, chosen, device, resolve(device))


def test_a_coarse_axis_is_not_halved_or_convolved_before_the_others() -> None:
    # Isensee et al. 2021: kernels and strides of 1 along an axis more than twice as coarse
    found = plan(facts((320, 320, 20), (0.5, 0.5, 3.0)))
    assert found.kernels[0] == (3, 3, 1)
    assert found.strides[1] == (2, 2, 1)
    assert found.kernels[2] == (3, 3, 3)
    assert all(p % d == 0 for p, d in zip(found.patch, found.divisor, strict=True))


def test_axes_follow_the_patient_not_the_file() -> None:
    turned = facts((20, 320, 160), (3.0, 0.5, 1.0), orientation="SPL")
    assert plan(turned).spacing == (1.0, 0.5, 3.0)


def test_the_patch_is_the_median_case_where_memory_allows() -> None:
    assert plan(facts((40, 50, 40))).patch == (40, 56, 40)
    large = plan(facts((512, 512, 300)))
    assert np.prod(large.patch) <= 1.3 * 160**3
    assert large.patch[2] <= large.patch[0]


def test_a_smaller_device_has_a_smaller_step_and_the_smallest_is_refused() -> None:
    big = facts((256, 256, 256))
    small = dataclasses.replace(A100, memory=2 * 2**30)
    assert step_bytes(plan(big, small)) <= 0.8 * small.memory < step_bytes(plan(big))
    # not enough memory for the planned patch
    with pytest.raises(ConfigError, match="MiB may be used"):
        plan(big, dataclasses.replace(A100, memory=2**20))
    with pytest.raises(ConfigError, match="a smaller --data.patch"):
        plan(big, small, data={"patch": [256, 256, 256]})


def test_normalisation_follows_the_modality() -> None:
    ct = facts(channels=((-1000.0, 0.0, 2000.0),))
    found = plan(ct).intensities[0]
    assert found.kind == "dataset"
    assert found.mean == pytest.approx(15, abs=0.1)
    assert 10 <= found.low < 10.1
    assert plan(facts()).intensities[0].kind == "case"
    assert plan(facts(zeros=0.6)).intensities[0].kind == "nonzero"
    assert plan(facts(), same_scale=True).intensities[0].kind == "dataset"
    assert plan(ct, data={"normalisation": "none"}).intensities[0].kind == "none"


def test_every_decision_can_be_overridden() -> None:
    data = {"spacing": [2, 2, 2], "patch": [16, 24, 16], "batch_size": 3, "patches": 7}
    found = plan(facts(), data=data, model={"depth": 2, "width": 5, "fold": 2, "name": "segresnet"})
    assert (found.spacing, found.patch) == ((2, 2, 2), (16, 24, 16))
    assert (found.batch_size, found.patches, found.network) == (3, 7, "segresnet")
    assert (found.filters, found.fold) == ((5, 10), (2, 2, 2))
    with pytest.raises(ConfigError, match="multiples of"):
        plan(facts(), data={"patch": [17, 16, 16]})
    with pytest.raises(ConfigError, match="2 numbers"):
        plan(facts(), data={"patch": [16, 16]})
    with pytest.raises(ConfigError, match="did you mean 'dynunet'"):
        plan(facts(), model={"name": "dynunett"})
    with pytest.raises(ConfigError, match="3 to "):
        plan(facts(), model={"depth": 2})
    with pytest.raises(ConfigError, match="reads flat pictures"):
        plan(facts(), model={"name": "resnet18"})


def test_flat_pictures_are_planned_in_two_axes() -> None:
    found = plan(facts((512, 700), (1.0, 1.0), orientation="flat", kind="picture"))
    assert len(found.patch) == 2
    assert found.kernels[0] == (3, 3)


def test_each_decision_is_explained_in_words() -> None:
    found = plan(facts((320, 320, 20), (0.5, 0.5, 3.0)))
    for word in ("spacing", "normalisation", "patch", "batch", "network", "kernels", "epoch"):
        assert f"**{word}**" in found.explain()


def test_a_plan_is_data_and_a_hostile_one_is_refused(tmp_path: Path) -> None:
    # pains/medical.md row 40
    found = plan(facts())
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(found.to_json()))
    assert read_plan(file) == found
    hostile = [
        {"network": "os.system"},
        {"network": {"_target_": "os.system", "command": "touch owned"}},
        {"patch": "$__import__('os').system('touch owned')"},
        {"patch": [-1, 8, 8]},
        {"intensities": [{"kind": "$exec", "low": 0, "high": 0, "mean": 0, "std": 1}]},
        {"classes": ["background"]},
        {"strides": []},
    ]
    for change in hostile:
        file.write_text(json.dumps(found.to_json() | change))
        with pytest.raises(DataError):
            read_plan(file)
    file.write_text("[1, 2")
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(file)
    assert not (tmp_path / "owned").exists()


def test_the_fingerprint_warns_of_rare_classes_and_small_pieces() -> None:
    # pains/medical.md row 16
    rare = facts(voxels={0: 10**7, 1: 50}, smallest={1: 2})
    said = "\n".join(warnings([rare], ["background", "cyst"], (64, 64, 64)))
    assert "cyst is 0.0005% of the voxels" in said
    assert "smallest pieces in voxels, of a patch of 262,144: cyst 2" in said
    assert "mask is empty" in warnings([facts(voxels={0: 9})], ["b", "a"], (8, 8, 8))[0]
    lines = "\n".join(summary([rare, facts(spacing=(1, 1, 2))], ["background", "cyst"]))
    for word in ("2 of 1 patients", "1×1×1.5 (median)", "RAS (2)", "0 to 100", "in 2 cases"):
        assert word in lines


def test_cases_of_a_few_voxels_get_a_network_that_can_be_trained() -> None:
    # a volume smaller than any patch
    found = plan(facts((3, 4, 2)), CPU)
    assert len(found.filters) == 3
    assert all(p % d == 0 for p, d in zip(found.patch, found.divisor, strict=True))
    assert np.prod(np.divide(found.patch, found.divisor)) > 1


def test_a_run_keeps_its_plan_and_refuses_what_contradicts_it(tmp_path: Path) -> None:
    trained = plan(facts(), A100)
    (tmp_path / "plan.json").write_text(json.dumps(trained.to_json()))

    def read(**model: Any) -> Plan:
        options = SegmentationOptions(data=DataOptions(batch_size=7), model=ModelOptions(**model))
        return read_run_plan(tmp_path, options, ["background", "a"])

    assert read() == dataclasses.replace(trained, batch_size=7)
    assert read(width=trained.filters[0]) == read()
    with pytest.raises(ConfigError, match=r"64 is asked for, and the run was trained with 32"):
        read(width=64)
    with pytest.raises(DataError, match="the classes are"):
        read_run_plan(tmp_path, SegmentationOptions(), ["background", "b"])
