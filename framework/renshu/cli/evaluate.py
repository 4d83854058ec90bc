"""`renshu evaluate RUN`: measure the test or the validation part again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli import trained

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Evaluate, write evaluation/<split>/ and the report anew, print the main figures."""
    more = "Options of the task, such as --data.batch_size 8, replace those of the run."
    parser = trained.Arguments("evaluate", more)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="default: test")
    asked, changes = parser.parse_known_args(arguments)
    found = parser.find(asked, changes)
    request, session.run_dir = found.request, found.run_dir

    from renshu.checkpoints import read_weights
    from renshu.cli.training import load_data, write_report
    from renshu.weights import load_weights

    data = load_data(request, found.run_dir)
    module = request.task.load("module")(request.options, data)
    load_weights(module, read_weights(found.checkpoint), where=str(found.checkpoint))
    evaluate = request.task.load("evaluate")
    evaluate(found.place(module), data, asked.split, found.run_dir)
    for name, value in trained.figures(found.run_dir, asked.split).items():
        print(f"{asked.split:<8} {name} {value}")
    print(f"{'report':<8} {write_report(found.run_dir)}")
    return 0
