"""From files to series: formats, time stamps, gaps, and what is refused with file and row."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("pandas", reason='needs pip install "renshu[anomaly]"')

import pandas as pd

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.readers import format_of, read_series
from renshu_tasks.anomaly.series import Series


def stamps(seconds) -> list[str]:
    return [str(pd.Timestamp("2026-01-01") + pd.Timedelta(seconds=int(s))) for s in seconds]


# --- formats


def test_a_table_of_ones_own(write_csv):
    file = write_csv({"time": stamps(range(0, 600, 60)), "a": range(10), "b": 1.5, "label": 0})
    series = read_series(file)
    assert series.values.shape == (10, 2) and series.channels == ("a", "b")
    assert series.period == 60 and series.train_end == 5 and series.labels is not None
    assert series.times is not None and series.times[1] - series.times[0] == 60
    assert read_series(file, DataOptions(columns=["b"])).values.tolist() == [[1.5]] * 10
    assert read_series(file, DataOptions(train_end=7)).train.shape == (7, 2)


def test_parquet_is_read_as_csv(tmp_path, write_csv):
    columns = {"time": stamps(range(50)), "value": np.arange(50.0), "is_anomaly": [0] * 49 + [1]}
    pd.DataFrame(columns).to_parquet(tmp_path / "own.parquet")
    one, two = read_series(tmp_path / "own.parquet"), read_series(write_csv(columns))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.times, two.times)
    assert one.events == two.events == [(49, 49)]


def test_tsb_ad_names_say_the_training_part(write_csv):
    columns = {"Data": np.arange(300.0), "Label": [0] * 250 + [1] * 50}
    series = read_series(write_csv(columns, "001_NAB_id_1_Facility_tr_100_1st_251.csv"))
    assert series.train_end == 100 and series.events == [(250, 299)]
    with pytest.raises(DataError, match="the name says row 900, the file has 300"):
        read_series(write_csv(columns, "001_X_tr_900_1st_251.csv"))


def test_ucr_names_say_training_and_event(tmp_path):
    file = tmp_path / "001_UCR_Anomaly_X_40_61_70.txt"
    file.write_text("\n".join(map(str, range(100))))
    series = read_series(file)
    assert series.train_end == 40 and series.events == [(60, 69)]
    line = tmp_path / "002_UCR_Anomaly_Y_40_61_70.txt"  # some files are one long line
    line.write_text("  ".join(map(str, range(100))))
    np.testing.assert_array_equal(read_series(line).values, series.values)


def test_nab_windows_label_the_rows_between(tmp_path):
    folder = tmp_path / "data" / "realX"
    folder.mkdir(parents=True)
    times = stamps(range(0, 300 * 200, 300))
    times[100] = times[99]  # NAB repeats time stamps; rows are counted
    pd.DataFrame({"timestamp": times, "value": range(200)}).to_csv(folder / "x.csv", index=False)
    windows = {"realX/x.csv": [[times[150], times[160]]]}
    (tmp_path / "combined_windows.json").write_text(json.dumps(windows))
    series = read_series(folder / "x.csv")
    assert series.events == [(150, 160)] and series.train_end == 30
    (tmp_path / "combined_windows.json").write_text("{}")
    with pytest.raises(DataError, match=r"no windows of 'realX/x\.csv'"):
        read_series(folder / "x.csv")


def test_a_plain_clone_of_nab_is_read_trained_on_and_predicted(tmp_path):
    from renshu_tasks.anomaly.bench import sources
    from renshu_tasks.anomaly.data import SeriesData
    from renshu_tasks.anomaly.module import build
    from renshu_tasks.anomaly.options import AnomalyOptions, ModelOptions
    from renshu_tasks.anomaly.predict import predict
    from renshu_tasks.anomaly.thresholds import Decision

    file = tmp_path / "data" / "realX" / "x.csv"
    file.parent.mkdir(parents=True)
    times = stamps(range(0, 300 * 400, 300))
    times[100] = times[99]
    pd.DataFrame({"timestamp": times, "value": range(400)}).to_csv(file, index=False)
    windows = tmp_path / "labels" / "combined_windows.json"
    windows.parent.mkdir()
    windows.write_text(json.dumps({"realX/x.csv": [[times[150], times[160]]]}))
    series = read_series(file)
    assert series.events == [(150, 160)]
    found = sources.folder(tmp_path / "data")[0]
    assert found.load().events == [(150, 160)]
    windows.write_text(json.dumps({"realX/x.csv": [[times[150], times[170]]]}))
    assert sources.folder(tmp_path / "data")[0].stamp != found.stamp

    module = build(AnomalyOptions(model=ModelOptions(name="difference")), SeriesData(series))
    module.detector.fit(series.train)
    module.decision = Decision.fit(module.detector.score(series.train), "conformal", 0.1)
    assert len(list(predict(module, [file], AnomalyOptions()))) == 400  # repeated stamps and all


def test_smd_folders(tmp_path):
    for kind, text in (
        ("train", "1,2\n3,4\n"),
        ("test", "5,6\n7,8\n9,10\n"),
        ("test_label", "0\n1\n1"),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "machine-1-1.txt").write_text(text)
    series = read_series(tmp_path)
    assert series.values.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]
    assert series.train_end == 2 and series.events == [(3, 4)]
    (tmp_path / "test_label" / "machine-1-1.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match="as many labels as test rows"):
        read_series(tmp_path)
    with pytest.raises(DataError, match="machine-1-1"):
        read_series(tmp_path, DataOptions(series="machine-9"))
    (tmp_path / "train" / "machine-1-2.txt").write_text("1,2\n3\n")
    with pytest.raises(DataError, match="there are 2 series"):
        read_series(tmp_path)


def test_the_shared_real_series(shared_data):
    files = [*(shared_data / "nab" / "data").glob("*/*.csv"), *(shared_data / "ucr").glob("*.txt")]
    assert len(files) == 44
    kinds = {format_of(file) for file in files}
    assert kinds == {"nab", "ucr"}
    series = [read_series(file) for file in files]
    assert all(one.train_end > 0 and one.labels is not None for one in series)
    ucr = next(one for one in series if one.name.startswith("135_UCR"))
    assert ucr.train_end == 1200 and ucr.events == [(4186, 4198)]
    machine = next(one for one in series if one.name.startswith("machine_temperature"))
    assert len(machine.events) == 4 and machine.period == 300


# --- sampling


def test_missing_rows_are_put_in_and_hold_the_value_before(write_csv):  # pains/anomaly.md row 31
    seconds = [0, 60, 120, 300, 360]
    file = write_csv({"time": stamps(seconds), "v": [1, 2, 3, 4, 5], "label": [0, 0, 1, 1, 0]})
    series = read_series(file, DataOptions(anomalies_in_train="allow"))
    assert series.values[:, 0].tolist() == [1, 2, 3, 3, 3, 4, 5]
    assert series.filled is not None and series.filled.tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert series.events == [(2, 5)]
    with pytest.raises(DataError, match="a gap of 2 points") as error:
        read_series(file, DataOptions(max_gap=1))
    assert "--data.max_gap 2" in str(error.value) and "point 3" in str(error.value)
    rows = read_series(file, DataOptions(sampling="rows", anomalies_in_train="allow"))
    assert rows.values[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_missing_values_hold_the_one_before(write_csv):
    values = [np.nan, 1, np.nan, np.nan, 4, 5, 6, 7]
    series = read_series(write_csv({"a": values, "b": range(8)}))
    assert series.values[:, 0].tolist() == [1, 1, 1, 1, 4, 5, 6, 7]
    with pytest.raises(DataError, match="a gap of 2 points"):
        read_series(write_csv({"a": values}), DataOptions(max_gap=1))
    with pytest.raises(DataError, match="channel 0"):
        read_series(write_csv({"a": [np.nan] * 8, "b": range(8)}))


def test_irregular_time_stamps_are_refused_or_averaged(write_csv):
    seconds = [0, 10, 20, 35, 47, 60, 70]
    file = write_csv({"time": stamps(seconds), "v": [1.0, 2, 3, 4, 5, 6, 7]})
    with pytest.raises(DataError, match="sampling is irregular: 2 of 6") as error:
        read_series(file)
    assert "--data.period 11" in str(error.value) and "row 4" in str(error.value)
    series = read_series(file, DataOptions(period=20.0))
    assert series.values[:, 0].tolist() == [1.5, 3.5, 5.0, 6.5] and series.period == 20


def test_mixed_frequencies_are_refused(write_csv):
    seconds = [*range(0, 6000, 60), *range(6000, 7000, 7)]
    file = write_csv({"time": stamps(seconds), "v": range(len(seconds))})
    with pytest.raises(DataError, match="irregular"):
        read_series(file)


@pytest.mark.parametrize(
    ("seconds", "said"), [([0, 60, 60, 120], "repeats"), ([0, 60, 30, 120], "lies 30 s before")]
)
def test_duplicate_and_descending_time_stamps_are_refused(seconds, said, write_csv):
    file = write_csv({"time": stamps(seconds), "v": range(4)})
    with pytest.raises(DataError, match=said) as error:
        read_series(file)
    assert "row 3" in str(error.value) and "own.csv" in str(error.value)
    assert len(read_series(file, DataOptions(sampling="rows"))) == 4


def test_a_little_jitter_is_one_period(write_csv):
    seconds = np.arange(0, 1000, 10) + np.random.default_rng(0).uniform(-0.4, 0.4, 100)
    assert len(read_series(write_csv({"time": seconds, "v": range(100)}))) == 100


def test_a_file_over_centuries_is_refused(write_csv):
    file = write_csv({"time": [0.0, 0.001, 0.002, 3e9], "v": range(4)})
    with pytest.raises(DataError, match="span more than"):
        read_series(file)


# --- what is refused


def test_text_in_a_number_column_is_named_with_its_row(write_csv):
    file = write_csv({"time": range(6), "v": ["1", "2", "oops", "4", "5", "6"]})
    with pytest.raises(DataError, match="'oops' is no number") as error:
        read_series(file)
    assert "row 3" in str(error.value) and "'v'" in str(error.value)


def test_a_time_stamp_that_is_none_is_named(write_csv):
    file = write_csv({"time": [*stamps(range(3)), "yesterday"], "v": range(4)})
    with pytest.raises(DataError, match="'yesterday' is no time stamp") as error:
        read_series(file)
    assert "row 4" in str(error.value)
    with pytest.raises(DataError, match="time stamp is missing"):
        read_series(write_csv({"time": [0.0, 1.0, np.nan, 3.0], "v": range(4)}))


def test_infinite_values_and_strange_labels_are_named(write_csv):
    with pytest.raises(DataError, match="inf is not finite") as error:
        read_series(write_csv({"v": [1.0, 2.0, np.inf, 4.0]}))
    assert "row 3" in str(error.value)
    with pytest.raises(DataError, match="the label 2"):
        read_series(write_csv({"v": range(4), "label": [0, 0, 2, 1]}))


def test_unknown_columns_get_the_nearest(write_csv):
    file = write_csv({"time": range(4), "temperature": range(4)})
    with pytest.raises(DataError, match="did you mean 'temperature'"):
        read_series(file, DataOptions(columns=["temprature"]))
    with pytest.raises(DataError, match="there is no column 'when'"):
        read_series(file, DataOptions(time_column="when"))
    with pytest.raises(DataError, match="no column of values"):
        read_series(write_csv({"time": range(4), "label": 0}))


# pains/anomaly.md row 12
def test_labels_that_leave_nothing_to_measure_are_refused(write_csv):
    values = {"v": range(10)}
    with pytest.raises(DataError, match="every point is labelled anomalous"):
        read_series(write_csv({**values, "label": 1}))
    first = [1, 1] + [0] * 8
    with pytest.raises(DataError, match="all 2 labelled anomalies lie in the training part"):
        read_series(write_csv({**values, "label": first}))
    both = [1, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    with pytest.raises(DataError, match="the first in row 0") as error:
        read_series(write_csv({**values, "label": both}))
    assert "--data.anomalies_in_train allow" in str(error.value)
    allowed = DataOptions(anomalies_in_train="allow")
    assert read_series(write_csv({**values, "label": both}), allowed).train_end == 5
    assert read_series(write_csv({**values, "label": 0})).events == []


def test_files_that_are_no_series_are_refused(tmp_path, write_csv):
    with pytest.raises(DataError, match="there is no such file"):
        read_series(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"end in \.xlsx are not read"):
        read_series(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="a folder of one series"):
        read_series(tmp_path)
    (tmp_path / "numbers.csv").write_text("1,2\n3,4\n")
    with pytest.raises(DataError, match="first row holds numbers"):
        read_series(tmp_path / "numbers.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="cannot be read"):
        read_series(tmp_path / "empty.csv")
    (tmp_path / "head.csv").write_text("time,v\n")
    with pytest.raises(DataError, match="no rows"):
        read_series(tmp_path / "head.csv")
    (tmp_path / "x_1_2_3.txt").write_text("1\n2\nthree\n4\n")
    with pytest.raises(DataError, match="line 3"):
        read_series(tmp_path / "x_1_2_3.txt")
    with pytest.raises(ConfigError, match="leaves nothing to score"):
        read_series(write_csv({"v": range(4)}), DataOptions(train_end=4))


def test_a_file_too_large_is_refused_with_the_limit(write_csv):
    with pytest.raises(DataError, match="more than 100 values") as error:
        read_series(write_csv({"v": range(200)}), DataOptions(max_values=100))
    assert "renshu predict reads files of any length" in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"values": np.zeros(5)}, "values are"),
        ({"values": np.zeros((5, 1), np.float32)}, "float32"),
        ({"values": np.zeros((5, 1)), "labels": np.zeros(4, np.uint8)}, "labels"),
        ({"values": np.zeros((5, 1)), "labels": np.full(5, 2, np.uint8)}, "not 0 and 1"),
        ({"values": np.zeros((5, 1)), "train_end": 6}, "train_end is 6"),
        ({"values": np.zeros((5, 2)), "channels": ("a",)}, "1 names for 2 channels"),
        ({"values": np.full((5, 1), np.nan)}, "nan in channel 0"),
    ],
)
def test_a_series_that_does_not_agree_with_itself_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        Series("x", **given)


def test_a_part_has_its_own_labels_and_times():
    series = Series(
        "x", np.arange(10.0)[:, None], np.eye(10, dtype=np.uint8)[7], 4, times=np.arange(10.0)
    )
    part = series.part(5, 9)
    assert part.events == [(2, 2)] and part.times is not None and part.times[0] == 5
    assert series.train.tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"val_share": 0.0},
        {"max_gap": -1},
        {"period": 0.0},
        {"train_end": 0},
        {"sampling": "weekly"},
        {"format": "xml"},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="data"):
        DataOptions(**wrong)
