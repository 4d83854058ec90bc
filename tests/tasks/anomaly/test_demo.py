"""The embedded series are the real ones, found without importing their packages."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip("pandas", reason='needs pip install "renshu[anomaly]"')
if find_spec("aeon") is None or find_spec("streamad") is None:
    pytest.skip("needs pip install 'renshu[demo]'", allow_module_level=True)

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.demo import NAMES, demo_file, load_demo


def test_one_event_and_three_events():
    pig, load = load_demo("internal_bleeding"), load_demo("uni_ds")
    assert len(pig) == 7501 and pig.train_end == 1200 and pig.events == [(4187, 4198)]
    assert len(load) == 999 and load.period == 3600
    assert load.events == [(623, 625), (658, 660), (893, 895)]
    assert {pig.origin, load.origin} == {"real"}


def test_an_altered_file_is_refused(tmp_path):
    # pains/anomaly.md row 32
    text = demo_file("uni_ds").read_text()
    (tmp_path / "x.csv").write_text(text.replace("330.5", "331.5", 1))
    with pytest.raises(DataError, match="not the file that was checked"):
        load_demo("uni_ds", tmp_path / "x.csv")


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'uni_ds'"):
        load_demo("unids")


def test_finding_them_imports_neither_package():
    code = (
        "import sys; from renshu_tasks.anomaly.demo import NAMES, load_demo;"
        "[load_demo(name) for name in NAMES];"
        "print(sorted({'aeon', 'streamad', 'sklearn', 'torch', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert len(NAMES) == 2


def test_the_task_is_described_without_torch_or_numpy():
    code = (
        "import sys; from renshu_tasks.anomaly import task; task.options();"
        "print(sorted({'torch', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
