"""Train, keep the weights that were best in validation, measure the test part once.

`python -m {{ cookiecutter.__package }}.train --help` lists every option.
"""

import json
import sys
from typing import Any

from renshu import Trainer, seed_everything
from renshu.callbacks import ModelCheckpoint
from renshu.errors import RenshuError
from renshu.report import write_report

from {{ cookiecutter.__package }}.config import Config, SaveConfig, read_config
from {{ cookiecutter.__package }}.data import TableData
from {{ cookiecutter.__package }}.model import build


def train(config: Config) -> Trainer:
    """Train as configured; the run's folder holds the model, its figures and a report."""
    best = ModelCheckpoint(monitor="val_loss", save_last=True)
    save = SaveConfig(config)
    arguments: dict[str, Any] = {"callbacks": [best, save], **config.trainer}
    trainer = Trainer(**arguments)
    seed_everything(trainer.seed)
    data = TableData(config.data)
    model = build(data, config.model, config.training)
    trainer.fit(model, datamodule=data, ckpt_path=config.ckpt_path)
    run = trainer.run_dir
    if trainer.interrupted or run is None or not trainer.is_global_zero:
        return trainer  # stopped with its state saved; a trial; or not the first of several
    # Without a validation, in a very short run, the weights are the last ones.
    chosen = "best" if best.best_model_path else None
    figures = trainer.test(model, datamodule=data, ckpt_path=chosen)[0]
    folder = run / "evaluation" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(figures), encoding="utf-8")
    trainer.save_checkpoint(run / "model", weights_only=True)
    print(f"model     {run / 'model'}\nreport    {write_report(run)}")
    return trainer


if __name__ == "__main__":
    try:
        train(read_config())
    except RenshuError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
