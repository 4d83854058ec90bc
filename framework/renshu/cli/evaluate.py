"""`renshu evaluate RUN`: measure the test or the validation part again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Evaluate, write evaluation/<split>/ and the report anew, print the main figures."""
    parser = argparse.ArgumentParser(
        "renshu evaluate",
        description="Measure a trained run. Options of its task, such as --data.batch_size 8,"
        " replace those of its config.yaml.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name below runs/")
    parser.add_argument("--split", choices=("test", "val"), default="test", help="default: test")
    parser.add_argument(
        "--ckpt_path",
        default="best",
        help="best: the finished model (default); last: the newest checkpoint; or a path",
    )
    asked, changes = parser.parse_known_args(arguments)

    from renshu.cli import trained

    found = trained.find(asked.run, asked.ckpt_path, changes)
    session.run_dir = found.run_dir

    from renshu import environment
    from renshu.checkpoints import read_weights
    from renshu.cli.training import load_part, write_report
    from renshu.weights import load_weights

    request = found.request
    data = load_part(request, "data")(request.options)
    environment.check_fingerprint(
        environment.read_environment(found.run_dir).get("fingerprint"),
        data.fingerprint(),
        allow=request.allow_changed_data,
    )
    module = load_part(request, "module")(request.options, data)
    load_weights(module, read_weights(found.checkpoint), where=str(found.checkpoint))
    module.to(found.device())
    trained.evaluation(found.task)(module, data, asked.split, found.run_dir)
    for name, value in trained.figures(found.run_dir, asked.split).items():
        print(f"{asked.split:<8} {name} {value}")
    if (report := write_report(found.run_dir)) is not None:
        print(f"{'report':<8} {report}")
    return 0
