"""The run report in a real browser, opened from its folder without a network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from browser import Browser, Page, chromium
from renshu.report import write_report
from run_folders import HOSTILE, PLAIN, copy_run, digits_run, renamed


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = digits_run(tmp_path_factory.mktemp("runs") / "digits")
    write_report(folder)
    return folder


def url(run: Path) -> str:
    return (run / "report.html").as_uri()


def drawn(page: Page) -> None:
    page.wait("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))")


@pytest.fixture(scope="module")
def opened(browser: Browser, run: Path) -> Iterator[Page]:
    """The report in the light scheme, 1200 pixels wide."""
    with browser.page(url(run)) as page:
        drawn(page)
        yield page


def test_opens_offline_with_charts_and_pictures_and_without_complaint(opened: Page) -> None:
    assert opened.run("document.querySelectorAll('.chart').length") >= 6
    assert opened.run("document.querySelectorAll('.chart .scatterlayer .trace').length") >= 6
    pictures = opened.run("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(pictures) == 24
    assert all(complete and width > 0 for complete, width in pictures)
    assert opened.complaints() == []
    assert {address.split(":")[0] for address in opened.requests()} <= {"file", "data"}


def test_a_chart_can_be_saved_as_a_picture(opened: Page) -> None:
    saved = "Plotly.toImage(document.querySelector('.chart'), {format: 'png', width: 9, height: 9})"
    assert opened.run(saved).startswith("data:image/png;base64,")
    assert opened.complaints() == []


@pytest.mark.parametrize("width", [320, 400, 800, 1600, 1200])
def test_no_width_needs_scrolling_sideways(opened: Page, width: int) -> None:
    opened.resize(width)
    charts = (
        "[...document.querySelectorAll('.chart svg')].map(s => s.getBoundingClientRect().right)"
    )
    opened.wait(f"innerWidth === {width} && Math.max(...{charts}) <= {width}")
    assert opened.run("document.documentElement.scrollWidth") <= width


def test_the_folder_alone_can_be_copied(browser: Browser, run: Path, tmp_path: Path) -> None:
    copy = copy_run(run, tmp_path / "elsewhere with space & #")
    with browser.page(url(copy)) as page:
        drawn(page)
        assert page.run("[...document.images].every(i => i.naturalWidth > 0)")
        assert page.complaints() == []


def test_without_the_script_the_numbers_are_shown(
    browser: Browser, run: Path, tmp_path: Path
) -> None:
    copy = copy_run(run, tmp_path / "copy")
    (copy / "plotly.min.js").unlink()
    with browser.page(url(copy)) as page:
        notes = page.run("[...document.querySelectorAll('[data-figure]')].map(c => c.textContent)")
        assert notes
        assert all("plotly.min.js is not beside this page" in note for note in notes)
        assert page.run(
            "[...document.querySelectorAll('[data-figure] + details')].every(d => d.open)"
        )


def test_hostile_names_change_no_tag_and_no_attribute_of_the_drawn_page(
    browser: Browser, run: Path, tmp_path: Path
) -> None:
    # pains/security.md row 31
    shapes = []
    for kind, names in (("plain", PLAIN), ("hostile", HOSTILE)):
        copy = renamed(copy_run(run, tmp_path / kind), names)
        write_report(copy)
        with browser.page(url(copy)) as page:
            drawn(page)
            page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            # Hover over the first cell of every chart: plotly writes labels there too.
            page.run("document.querySelectorAll('.chart').forEach(c => Plotly.Fx.hover(c, [{}]))")
            shapes.append(page.run(SHAPE))
            assert page.run("window.owned") is None
            assert page.complaints() == []
            assert page.events("Page.javascriptDialogOpening") == []
            assert {a.split(":")[0] for a in page.requests()} <= {"file", "data"}
    assert shapes[0] == shapes[1]


SHAPE = """
[...document.querySelectorAll('*')].map(e => e.tagName + ' '
  + [...e.attributes].map(a => a.name).sort().join(' '))
"""


def test_the_content_policy_stops_what_would_be_smuggled_in(browser: Browser, run: Path) -> None:
    # pains/security.md row 31: the second wall, should an escape ever be forgotten
    with browser.page(url(run)) as page:
        page.run(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"owned = 1\">');"
            "const s = document.createElement('script'); s.textContent = 'owned = 2';"
            "document.body.append(s)"
        )
        page.run("new Promise(done => setTimeout(done, 200))")
        assert page.run("window.owned") is None
        assert len(page.complaints()) >= 2


def test_a_click_on_a_head_sorts(opened: Page) -> None:
    rows = "[...document.querySelectorAll('table.sortable tbody tr')]"
    column = rows + ".map(r => +r.cells[3].dataset.value)"
    head = "document.querySelector('table.sortable').tHead.rows[0].cells[3]"
    before = opened.run(column)
    opened.run(f"{head}.querySelector('button').click()")
    assert opened.run(column) == sorted(before)
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    opened.run(f"{head}.querySelector('button').click()")
    assert opened.run(column) == sorted(before, reverse=True)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_stands_out_from_its_ground(opened: Page, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG 2.2, 1.4.3) for every text, charts included."""
    opened.prefer(scheme)
    opened.wait(f"{INK} === '{INKS[scheme]}'")
    assert opened.run("document.querySelectorAll('.chart text').length") > 40
    assert opened.run(LOW_CONTRAST) == []


INK = "getComputedStyle(document.querySelector('.chart .xtick text')).fill"
INKS = {"light": "rgb(86, 96, 113)", "dark": "rgb(159, 171, 189)"}
"""The colour of a chart's axis in each scheme."""

LOW_CONTRAST = """
(() => {
  const numbers = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => {
    const linear = (v) => v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = c.map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (e.closest('script, noscript, .hm, .heatmaplayer') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const ink = numbers(e.namespaceURI.endsWith('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${e.tagName} ${e.textContent.slice(0, 20)} ${ratio.toFixed(2)}`);
  }
  return found;
})()
"""


def test_on_paper_the_charts_are_light(opened: Page) -> None:
    opened.prefer("dark")
    opened.wait(f"{INK} === '{INKS['dark']}'")
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run(INK) == INKS["light"]
    opened.run("dispatchEvent(new Event('afterprint'))")
    assert opened.run(INK) == INKS["dark"]


def test_everything_is_named_for_who_cannot_see_it(opened: Page) -> None:
    assert opened.run("[...document.images].every(i => i.alt.length > 3)")
    assert opened.run("[...document.querySelectorAll('.chart')].every(c => c.ariaLabel)")
    assert opened.run("[...document.querySelectorAll('table')].every(t => t.caption.textContent)")
    levels = opened.run("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_a_run_that_has_only_started_opens_too(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "started"
    folder.mkdir()
    (folder / "metrics.csv").write_text("epoch,step,samples,train_loss\n")
    with browser.page(write_report(folder).as_uri()) as page:
        assert "metrics.csv holds no values yet" in page.run("document.body.innerText")
        assert page.complaints() == []


@pytest.mark.parametrize(
    ("ci", "end"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_a_missing_browser_fails_in_ci_and_skips_elsewhere(
    ci: str, end: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(end, match="chromium is not installed"), chromium(tmp_path):
        raise AssertionError("a browser was found in an empty folder")
