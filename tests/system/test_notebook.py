"""A notebook in a real kernel: progress in place, an interrupt, going on, a plot."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs renshu[notebook]")
nbclient = pytest.importorskip("nbclient", reason="needs renshu[notebook]")
pytest.importorskip("ipykernel", reason="needs renshu[notebook]")
pytest.importorskip("matplotlib", reason="needs renshu[notebook]")

pytestmark = pytest.mark.slow

TRAIN, GO_ON, PLOT = "cell-3", "cell-5", "cell-7"

# A run with another name that nobody stops, and whether it ends with the same weights.
WHOLE = """
stopped = [parameter.detach().clone() for parameter in model.parameters()]
seed_everything(1)
model = Classifier()
Trainer(max_epochs=20, run="whole", accelerator="cpu").fit(model, train, val)
print(all(torch.equal(a, b) for a, b in zip(stopped, model.parameters(), strict=True)))
"""


class User(nbclient.NotebookClient):
    """Runs the cells, and presses the interrupt button when the second line of progress is seen."""

    seen: list[tuple[str, str]]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        kind, content = msg["msg_type"], msg["content"]
        if kind in ("display_data", "update_display_data"):
            self.seen.append((cell["id"], content["data"].get("text/plain", "")))
            if cell["id"] == TRAIN and len([c for c, _ in self.seen if c == TRAIN]) == 2:
                self.pressed = asyncio.ensure_future(self.km.interrupt_kernel())
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def executed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The notebook after it ran, cells by id; and the user who ran it."""
    notebook = nbformat.read(root / "examples" / "notebook.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(WHOLE, id="whole"))
    folder = tmp_path_factory.mktemp("notebook")
    user = User(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    user.seen = []
    user.execute()
    return {cell["id"]: cell for cell in notebook.cells}, user


def outputs(cell: Any, kind: str) -> list[Any]:
    return [output for output in cell["outputs"] if output["output_type"] == kind]


def text(cell: Any) -> str:
    return "".join(output["text"] for output in outputs(cell, "stream"))


def test_progress_is_one_output_updated_in_place(executed: Any) -> None:
    # capabilities A5
    cells, user = executed
    lines = [line for cell, line in user.seen if cell == TRAIN]
    assert len(lines) >= 2 and len(set(lines)) == len(lines)  # it moved
    (widget,) = outputs(cells[TRAIN], "display_data")  # and stayed one output
    assert widget["data"]["text/plain"] == lines[-1]
    assert re.search(r"epoch \d+/20  [━─]{16}  \d+/45 .*samples/s  loss ", lines[-1])


def test_no_cell_shows_an_escape_code_or_a_carriage_return(executed: Any) -> None:
    cells, user = executed
    shown = "".join(line for _, line in user.seen)
    shown += "".join(text(cell) for cell in cells.values() if cell["cell_type"] == "code")
    assert not re.search(r"[\x1b\r\x08]", shown)


def test_an_interrupted_cell_ends_without_a_traceback_and_says_how_to_go_on(executed: Any) -> None:
    cells, _ = executed
    said = text(cells[TRAIN])
    step = re.search(r"interrupted at step (\d+)", said)
    assert step is not None and 0 < int(step[1]) < 20 * 45
    assert not outputs(cells[TRAIN], "error")
    assert 'ckpt_path="last"' in said


def test_a_later_cell_goes_on_to_the_same_bits_as_a_run_never_stopped(executed: Any) -> None:
    cells, _ = executed
    said = text(cells[GO_ON])
    assert "resuming from" in said and f"done at step {20 * 45}" in said
    assert text(cells["whole"]).splitlines()[-1] == "True"


def test_plots_are_shown_inline(executed: Any) -> None:
    cells, _ = executed
    (plot,) = outputs(cells[PLOT], "display_data")
    assert "image/png" in plot["data"]
