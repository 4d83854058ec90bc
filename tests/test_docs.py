"""The documentation: its code runs, it builds without a network, and it names what is public."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import renshu
import renshu.callbacks
import renshu.loggers
from browser import chromium
from renshu.cli.main import COMMANDS
from renshu.options import TrainerOptions

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text("utf-8"))


PAGES = [page for page in sorted(DOCS.glob("*.md")) if blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_code_of_a_page_runs_from_top_to_bottom(page: Path, run_dir: Path) -> None:
    script = run_dir / f"{page.stem}.py"
    # A page writes its assertions for the reader; here they are what is tested.
    script.write_text("\n".join(blocks(page)), encoding="utf-8")
    runpy.run_path(str(script))


def test_the_pages_that_explain_code_have_some() -> None:
    named = {"getting_started", "trainer", "module", "data", "callbacks", "loggers", "errors"}
    assert {page.stem for page in PAGES} >= named | {"optimizers", "checkpoints"}


class Page(HTMLParser):
    """Anchors of a built page, and what a browser would fetch to show it."""

    def __init__(self, file: Path):
        super().__init__()
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found: dict[str, Any] = dict(attrs)
        if "id" in found:
            self.anchors.add(found["id"])
        fetches = tag in ("script", "img", "iframe", "source", "video", "link")
        # A canonical link says where a page lives; nothing is fetched from there.
        if fetches and found.get("rel") != "canonical":
            self.fetched += [found[key] for key in ("src", "href", "srcset") if found.get(key)]


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages. A warning of the builder, such as a broken reference, is an error."""
    pytest.importorskip("mkdocs", reason="needs renshu[docs]")
    pytest.importorskip("mkdocstrings", reason="needs renshu[docs]")
    folder = tmp_path_factory.mktemp("site")
    done = build(root, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def build(root: Path, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # No proxy answers there: whoever asks the network fails.
    offline = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}
    env = {**os.environ, **offline, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [*command, *more], cwd=root, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {file.stem: Page(file) for file in site.glob("*.html")}


def test_no_page_fetches_anything_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    assert {"index", "trainer", "callbacks"} <= pages.keys()
    fetched = [url for page in pages.values() for url in page.fetched]
    assert any(url.endswith(".css") for url in fetched)
    assert not [url for url in fetched if re.match(r"(https?:)?//", url)]
    styles = "".join(file.read_text("utf-8") for file in site.rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", styles)


@pytest.mark.slow
def test_a_browser_asks_for_nothing_beyond_the_folder(site: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        for name in ("index", "trainer", "converting"):
            with browser.page((site / f"{name}.html").as_uri()) as page:
                page.wait("document.querySelector('h1') !== null")
                asked = {address.split(":")[0] for address in page.requests()}
                assert asked <= {"file", "data", "blob"}, page.requests()


def test_every_public_name_has_its_place(pages: dict[str, Page]) -> None:
    anchors = {anchor.rpartition(".")[2] for page in pages.values() for anchor in page.anchors}
    names = {*renshu.__all__, *renshu.callbacks.__all__, *renshu.loggers.__all__}
    # The names that people from Lightning know stand beside renshu's own; the last two are for
    # the Trainer alone.
    other = {"LightningModule", "LightningDataModule", "RichModelSummary", "RichProgressBar"}
    assert names - anchors == other | {"TQDMProgressBar", "LOGGERS", "make_loggers"}
    entries = {f"renshu.trainer.Trainer.{name}" for name in ("fit", "validate", "test", "predict")}
    assert entries <= pages["trainer"].anchors


def test_the_options_and_commands_are_those_of_the_code(site: Path) -> None:
    trainer = (site / "trainer.html").read_text("utf-8")
    for option in fields(TrainerOptions):
        assert f"<td><code>{option.name}</code></td>" in trainer, option.name
    commands = (site / "command_line.html").read_text("utf-8")
    for name in COMMANDS:
        assert f"<td><code>renshu {name}</code></td>" in commands, name


@pytest.mark.slow
def test_a_broken_reference_fails_the_build(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="needs renshu[docs]")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[`Trainer`][renshu.trainer.Nobody]\n", encoding="utf-8")
    settings = (root / "mkdocs.yml").read_text("utf-8")
    settings = re.sub(r"^hooks:.*$", "", settings, flags=re.MULTILINE)
    settings = re.sub(r"^nav:\n(?:  .*\n)+", "", settings, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0 and "renshu.trainer.Nobody" in done.stderr
