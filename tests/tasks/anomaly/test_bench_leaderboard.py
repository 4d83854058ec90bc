"""leaderboard.html in a real browser, from its folder, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly")
pytest.importorskip("scipy")
from browser import Browser, chromium
from renshu_tasks.anomaly.bench.command import run

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve series, one with a hostile name and one that cannot be read."""
    root = tmp_path_factory.mktemp("bench")
    data = root / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        values, labels = rng.standard_normal(500), np.zeros(500, dtype=int)
        labels[300:320], values[300:320] = 1, values[300:320] + number / 3
        lines = [f"{value},{label}" for value, label in zip(values, labels, strict=True)]
        name = f"{HOSTILE}.csv" if number == 5 else f"s{number:02d}.csv"
        (data / name).write_text("value,label\n" + "\n".join(lines) + "\n")
    (data / "broken.csv").write_text("value,label\nx,0\n1,1\n")
    arguments = ["--data", str(data), "--folder", str(root / "out"), "--part", "all"]
    chosen = ["--detectors", "random,constant,difference,zscore", "--seeds", "1"]
    assert run([*arguments, *chosen], lambda line: None) == 0
    return root / "out"


def drawn(page: object) -> None:
    page.wait("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))")


def test_it_opens_offline_without_complaint(browser: Browser, folder: Path) -> None:
    with browser.page((folder / "leaderboard.html").as_uri()) as page:
        drawn(page)
        assert page.complaints() == []
        assert {address.split(":")[0] for address in page.requests()} <= {"file", "data"}
        heads = page.run("[...document.querySelectorAll('h2')].map(h => h.textContent)")
        for title in ("Standings", "Mean ranks", "Accuracy and time", "Warnings", "Failures"):
            assert title in heads
        text = page.run("document.body.textContent")
        assert "critical difference" in text
        assert "no number" in text or "'x'" in text  # the reason of broken.csv
        assert "4" in page.run("document.querySelector('#s6 tbody').rows.length.toString()")


def test_the_standings_sort_by_a_click(browser: Browser, folder: Path) -> None:
    with browser.page((folder / "leaderboard.html").as_uri()) as page:
        drawn(page)
        rows = "[...document.querySelectorAll('#s0 table.sortable tbody tr')]"
        column = f"{rows}.map(row => +row.cells[1].dataset.value)"
        first = page.run(column)
        assert first == sorted(first, reverse=True)
        page.run("document.querySelectorAll('#s0 th button')[1].click()")
        assert page.run(column) == sorted(first)


def test_every_series_has_a_page_that_zooms(browser: Browser, folder: Path) -> None:
    with browser.page((folder / "leaderboard.html").as_uri()) as page:
        drawn(page)
        links = page.run("[...document.querySelectorAll('#series a')].map(a => a.href)")
        names = page.run("[...document.querySelectorAll('#series a')].map(a => a.textContent)")
        assert len(links) == 12
        assert HOSTILE in names
        hostile = names.index(HOSTILE)
        for link in (links[hostile], links[-1]):
            page.open(link)
            drawn(page)
        assert page.complaints() == []
        lines = "document.querySelectorAll('.scatterlayer .trace').length"
        assert page.run(lines) >= 2  # values and a score; baselines are drawn when clicked
        assert page.run("document.querySelectorAll('.shapelayer path').length") == 2
        zoom = "Plotly.relayout(document.querySelector('.chart'), {'xaxis.range': [280, 340]})"
        page.run(f"{zoom}.then(() => true)")
        assert page.run("document.querySelector('.chart').layout.xaxis.range[0]") == 280


def test_with_few_series_it_says_why_there_are_no_ranks(browser: Browser, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    values = "\n".join(f"{i % 7},{int(i == 400)}" for i in range(500))
    (data / "one.csv").write_text(f"value,label\n{values}\n")
    run(["--data", str(data), "--folder", str(tmp_path / "out"), "--part", "all",
         "--detectors", "random,difference"], lambda line: None)  # fmt: skip
    with browser.page((tmp_path / "out" / "leaderboard.html").as_uri()) as page:
        drawn(page)
        text = page.run("document.body.textContent")
        assert "There is no diagram of ranks. 1 series" in text
        assert "There is no interval over series" in text
