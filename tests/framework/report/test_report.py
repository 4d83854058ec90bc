"""The run report and the model card, from the files of a run folder."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from renshu.errors import DataError
from renshu.report import (
    Chart,
    Headline,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    write_report,
)
from renshu.report.charts import bars, heatmap, lines, thin
from renshu.report.html import Page, clean, script_json
from renshu.report.run import read_run
from run_folders import HOSTILE, PLAIN, copy_run, digits_run, renamed


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = digits_run(tmp_path_factory.mktemp("runs") / "digits")
    write_report(folder)
    return folder


class Dom(HTMLParser):
    """Tags with their attributes' names, addresses, and the text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shape: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self.shape.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(path: Path, *sections: Section, headlines: tuple[Headline, ...] = ()) -> str:
    return Page(path, "run", []).render(headlines, [], sections)


# --- what is in it --------------------------------------------------------------------------------


def test_report_holds_figures_curves_errors_pictures_calibration_and_command(digits: Path) -> None:
    text = "".join(Dom((digits / "report.html").read_text("utf-8")).text)
    metrics = json.loads((digits / "evaluation/test/metrics.json").read_text())
    accuracy = metrics["accuracy"]
    assert f"{100 * accuracy['value']:.1f}" in text
    assert f"95 %: {100 * accuracy['low']:.1f}–{100 * accuracy['high']:.1f}" in text
    for heading in ("Training", "Confusion", "Classes", "Worst pictures", "Calibration"):
        assert heading in text
    for heading in ("Abstention", "Data", "Reproduce", "Settings", "Timings"):
        assert heading in text
    assert f"renshu train --config {digits}/config.yaml" in text
    assert "learning_rate" in text
    assert f"{359:064x}" in text, "the fingerprint of the validation part"


def test_training_and_validation_share_a_chart_and_the_learning_rate_has_its_own(
    digits: Path,
) -> None:
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', _html(digits), re.DOTALL)[0])
    names = [[trace["name"] for trace in figure["data"]] for figure in figures[:3]]
    assert names == [["train (step)", "val"], ["train", "val"], ["lr-Adam"]]
    run = read_run(digits)
    assert figures[0]["data"][1]["y"] == run.series["val_loss"][1]


def test_calibration_error_of_the_diagram_is_that_of_the_metrics(digits: Path) -> None:
    metrics = json.loads((digits / "evaluation/test/metrics.json").read_text())
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', _html(digits), re.DOTALL)[0])
    names = [trace["name"] for figure in figures for trace in figure["data"] if "name" in trace]
    assert f"calibrated: error {metrics['ece']['value']:.3f}" in names


def test_model_card_names_figures_classes_data_settings_versions_and_command(digits: Path) -> None:
    card = (digits / "model_card.md").read_text("utf-8")
    metrics = json.loads((digits / "evaluation/test/metrics.json").read_text())
    value, low, high = (metrics["macro_f1"][key] for key in ("value", "low", "high"))
    assert f"| Test macro F1 | {value:.3f} | {low:.3f} to {high:.3f} |" in card
    assert "Gives a picture one of 10 classes: 0, 1, 2" in card
    assert "| training.learning\\_rate | 0.003 |" in card
    assert "| packages.torch | 2.14.1 |" in card
    assert f"renshu train --config {digits}/config.yaml" in card
    for heading in ("Classes", "Use and limits", "All figures", "Data", "Settings"):
        assert f"\n## {heading}\n" in card


def test_writing_again_gives_the_same_bytes(digits: Path) -> None:
    before = (digits / "report.html").read_bytes()
    assert write_report(digits).read_bytes() == before


def test_training_time_is_that_of_the_newest_checkpoint(digits: Path, tmp_path: Path) -> None:
    run = copy_run(digits, tmp_path / "run")
    for step, seconds in ((90, 20.0), (9, 2.0)):
        folder = run / "checkpoints" / f"step={step:06}"
        folder.mkdir(parents=True)
        state = {"state": {"progress": {"step": step, "samples": 100 * step, "seconds": seconds}}}
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "manifest.json").write_text(json.dumps({"step": step}))
    (run / "checkpoints" / "step=000099").mkdir()
    (run / "checkpoints" / "step=000099" / "manifest.json").write_text('{"st')
    text = " ".join(Dom(_html(run)).text)
    assert "training, in seconds 20" in text
    assert "samples a second 450" in text


# --- one script for all runs ----------------------------------------------------------------------


def test_runs_of_one_folder_share_one_copy_of_the_script(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").write_text("a: 1\n")
        write_report(tmp_path / "runs" / name)
    files = [tmp_path / "runs" / name / "plotly.min.js" for name in ("a", "b", "c")]
    assert len({file.stat().st_ino for file in files}) == 1


def test_a_changed_script_of_another_run_is_not_taken_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("a: 1\n")
    write_report(tmp_path / "a")
    good = (tmp_path / "a" / "plotly.min.js").read_bytes()
    (tmp_path / "a" / "plotly.min.js").write_bytes(b"alert(1)" + good[8:])
    write_report(tmp_path / "b")
    assert (tmp_path / "b" / "plotly.min.js").read_bytes() == good
    write_report(tmp_path / "a")
    assert (tmp_path / "a" / "plotly.min.js").read_bytes() == good


# --- what is missing or broken --------------------------------------------------------------------


def test_no_folder_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run folder") as error:
        write_report(tmp_path / "absent")
    assert error.value.where == str(tmp_path / "absent")


def test_a_folder_that_is_no_run_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no run")
    with pytest.raises(DataError, match="not a run") as error:
        write_report(tmp_path)
    assert error.value.where == str(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("rm evaluation", "This run was not evaluated yet"),
        ("rm metrics.csv", "metrics.csv is missing"),
        ("rm config.yaml", "config.yaml is missing"),
        ("rm environment.json", "environment.json is missing"),
        ("rm evaluation/test/worst.json", "No pictures were kept."),
        ("rm evaluation/test/worst/00.png", "no picture"),
        ("rm evaluation/test/arrays.safetensors", "the evaluation cannot be shown"),
        ("cut metrics.csv", "metrics.csv holds no values yet"),
        ("cut evaluation/test/metrics.json", "evaluation/test/metrics.json cannot be read"),
        ("cut evaluation/test/arrays.safetensors", "the evaluation cannot be shown"),
        ("cut evaluation/test/worst/00.png", "no picture"),
        ("cut environment.json", "environment.json cannot be read"),
        ("put environment.json [1, 2]", "environment.json holds a list"),
        ("put environment.json " + "[" * 10_000, "environment.json cannot be read"),
        ("put environment.json " + '{"a":' * 500 + "1" + "}" * 500, "1 values"),
        ("put evaluation/test/metrics.json {" + '"huge": 1' + "0" * 2000 + "}", "inf"),
        ("put config.yaml a: &a [1]\nb: *a", "aliases"),
        ("put config.yaml a: !!python/object/apply:os.system [ls]", "is not read"),
        ("put config.yaml task: unknown", "there is no task 'unknown'"),
    ],
)
def test_what_is_missing_or_broken_is_said(
    digits: Path, tmp_path: Path, damage: str, said: str
) -> None:
    run = copy_run(digits, tmp_path / "run")
    kind, name, *content = damage.split(" ", 2)
    path = run / name
    if kind == "put":
        path.write_text(content[0])
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:20])
    else:
        path.rename(tmp_path / "away")
    assert said in " ".join(Dom(write_report(run).read_text("utf-8")).text)


def test_a_half_written_row_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,samples,train_loss\n0,0,8,2.5\n0,1,16,oops\n0,2,24\n0,3,32,1.5\n0,4,40,1.2"
    )
    run = read_run(tmp_path)
    assert run.series["train_loss"] == ([0, 3], [2.5, 1.5])
    assert "metrics.csv: 2 broken row(s) left out." in run.problems


def test_nan_is_a_gap_and_an_empty_cell_is_no_point(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,samples,train_loss,val_loss\n0,0,8,2.5,\n0,1,16,nan,\n0,2,24,inf,1.0\n"
    )
    text = write_report(tmp_path).read_text("utf-8")
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', text, re.DOTALL)[0])
    train, val = figures[0]["data"]
    assert (train["x"], train["y"]) == ([0, 1, 2], [2.5, None, None])
    assert (val["x"], val["y"]) == ([2], [1.0])


def test_a_guard_against_formulas_in_a_column_name_is_taken_off(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,samples,'=x\n0,0,8,2.5\n")
    assert list(read_run(tmp_path).series) == ["=x"]


# --- hostile names --------------------------------------------------------------------------------


def test_hostile_names_change_no_tag_and_no_attribute(digits: Path, tmp_path: Path) -> None:
    # pains/security.md row 31
    doms = []
    for kind, names in (("plain", PLAIN), ("hostile", HOSTILE)):
        run = renamed(copy_run(digits, tmp_path / kind / "run"), names)
        doms.append(Dom(write_report(run).read_text("utf-8")))
    assert doms[0].shape == doms[1].shape
    text = "".join(doms[1].text)
    for name in HOSTILE:
        assert name in text, "it is shown as it is"


def test_no_address_leaves_the_run_folder(digits: Path) -> None:
    dom = Dom(_html(digits))
    assert {"plotly.min.js", "evaluation/test/worst/00.png"} <= set(dom.addresses)
    for address in dom.addresses:
        assert re.match(r"#|data:,$|plotly\.min\.js$|evaluation/test/worst/\w+\.png$", address)
    assert "http" not in re.sub(r"http-equiv", "", _html(digits))
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', _html(digits))[0]
    assert policy.startswith("default-src 'none'; script-src 'nonce-")


def test_pictures_outside_the_run_folder_are_not_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08"
    (tmp_path / "secret.png").write_bytes(png)
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    (run / "good.png").write_bytes(png)
    names = ["good.png", "../secret.png", "link.png", str(tmp_path / "secret.png")]
    names += ["a\0b.png", "a\ud800b.png", "a" * 5000, ""]
    items = [Picture([(Path(name), "a picture")], name) for name in names]
    dom = Dom(page(run, Section("Pictures", [Pictures("all", items)])))
    assert [a for a in dom.addresses if a.endswith(".png")] == ["good.png"]


def test_the_card_holds_no_live_markup(digits: Path, tmp_path: Path) -> None:
    # pains/security.md row 31: a model card is shown by web pages as well
    cells = []
    for kind, names in (
        ("plain", PLAIN),
        ("hostile", [f"[x](javascript:1)|`{n}" for n in HOSTILE]),
    ):
        run = renamed(copy_run(digits, tmp_path / kind / "run"), names)
        write_report(run)
        card = (run / "model_card.md").read_text("utf-8")
        card = re.sub(r"```+\n.*?\n```+", "", card, flags=re.DOTALL)
        assert "<" not in card
        assert not re.search(r"(?<!\\)\]\(|(?<!\\)`", card)
        cells.append([len(re.findall(r"(?<!\\)\|", line)) for line in card.splitlines()])
    assert cells[0] == cells[1]
    assert max(cells[0]) == 7


def test_labels_of_charts_hold_no_markup_for_plotly(tmp_path: Path) -> None:
    # pains/security.md row 31: plotly draws <a>, <b>, <br> and entities in labels
    label = '<a href="javascript:x()">&lt;</a>'
    chart = bars(label, [label], {label: [1]}, y=label)
    text = page(tmp_path, Section(label, [chart]))
    figure = json.loads(re.findall(r'id="figures">(.*?)</script>', text, re.DOTALL)[0])[0]
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(figure))
    assert not any("<" in string or ("&lt;/a" in string and ">" in string) for string in strings)
    assert figure["data"][0]["customdata"][0].count("&lt;") == 2
    assert "&amp;lt;" in figure["data"][0]["customdata"][0], "an entity stays text"


def test_json_cannot_end_its_script(tmp_path: Path) -> None:
    value = {"</script><!--": "<script>]]>\u2028&"}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_text_that_turns_the_direction_of_writing_is_made_visible() -> None:
    assert clean("cat\u202egnp.exe\x00\ud800") == "cat\ufffdgnp.exe\ufffd\ufffd"
    assert clean("日本 é 👩‍🔬\n") == "日本 é 👩‍🔬\n"


# --- parts ----------------------------------------------------------------------------------------


def test_a_chart_carries_its_numbers_as_a_table(tmp_path: Path) -> None:
    chart = lines("Loss", {"train": ([0, 1], [2.0, float("nan")])}, x="step")
    dom = Dom(page(tmp_path, Section("S", [chart])))
    assert ("caption",) in dom.shape
    assert [t for t in dom.text if t in ("train", "0", "2", "1", "–")] == [
        "train", "0", "2", "train", "1", "–",
    ]  # fmt: skip


def test_thinning_keeps_the_extremes_the_ends_and_the_gaps() -> None:
    values = [float(i % 7) for i in range(100_000)]
    values[31_415], values[27_182], values[50_000] = 99.0, -99.0, float("nan")
    xs, ys = thin((list(range(100_000)), values), 1000)
    assert len(xs) <= 1600
    assert (xs[0], xs[-1]) == (0, 99_999)
    assert list(xs) == sorted(xs)
    assert dict(zip(xs, ys, strict=True))[31_415] == 99.0
    assert dict(zip(xs, ys, strict=True))[27_182] == -99.0
    assert 50_000 in xs


def test_a_heat_map_is_coloured_by_the_shares_of_its_rows() -> None:
    chart = heatmap("C", ["a", "b"], [[3, 1], [0, 0]], x="predicted", y="true", alt="-")
    assert chart.traces[0]["z"] == [[0.75, 0.25], [0.0, 0.0]]


def test_classes_of_the_same_name_have_bars_of_their_own() -> None:
    chart = bars("B", ["same", "same"], {"n": [1, 2]}, y="n")
    assert chart.traces[0]["x"] == [0, 1]


def test_a_cell_of_0_or_1_sorts_as_a_number_and_nothing_else_does(tmp_path: Path) -> None:
    row = [0, 1, 0.0, 1.0, True, False, None, float("nan"), float("inf"), "1"]
    table = Table("T", list("abcdefghij"), [row], bars=["d"])
    text = page(tmp_path, Section("S", [table]))
    assert re.findall(r'data-value="([^"]*)"', text) == ["0", "1", "0.0", "1.0"]
    cells = [re.sub("<.*", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", text)]
    assert cells == ["0", "1", "0", "1.000", "yes", "no", "–", "–", "inf", "1"]


def test_headline_shows_percent_and_interval(tmp_path: Path) -> None:
    one = Headline("Accuracy", 0.9876, 0.98, 0.995, "%", "450 pictures")
    text = "".join(Dom(page(tmp_path, headlines=(one,))).text)
    assert "98.8 %" in text
    assert "95 %: 98.0–99.5" in text


def test_an_empty_section_says_so(tmp_path: Path) -> None:
    assert "come back later" in page(tmp_path, Section("S", empty="come back later"))
    table = Table("T", ["a"], [["x"]], folded=True)
    assert "come back" not in page(tmp_path, Section("S", [table, Text("t")], empty="come back"))


def test_an_infinite_value_leaves_valid_json(tmp_path: Path) -> None:
    table = Table("T", ["a"], [[float("inf")]])
    chart = Chart("C", "-", [{"y": [float("inf"), float("-inf"), 1.0]}], {}, table)
    text = page(tmp_path, Section("S", [chart]))
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', text, re.DOTALL)[0])
    assert figures[0]["data"][0]["y"] == [None, None, 1.0]


def _html(run: Path) -> str:
    return write_report(run).read_text("utf-8")
