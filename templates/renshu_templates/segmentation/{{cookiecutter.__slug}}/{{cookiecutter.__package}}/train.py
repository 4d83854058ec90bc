"""Train, choose on the validation part, measure the test part once.

`python -m {{ cookiecutter.__package }}.train --help` lists every option.
"""

import sys
from typing import Any

from renshu import Trainer, seed_everything
from renshu.errors import RenshuError
from renshu.report import write_report
from renshu_tasks.common.ema import WarmEMA
from renshu_tasks.segmentation.module import finish

from {{ cookiecutter.__package }}.config import Config, SaveConfig, read_config
from {{ cookiecutter.__package }}.data import load
from {{ cookiecutter.__package }}.model import build


def train(config: Config) -> Trainer:
    """Train as configured; the run's folder holds the model, its figures and a report."""
    save = SaveConfig(config, "segmentation")
    arguments: dict[str, Any] = {"callbacks": [WarmEMA(0.99), save], **config.trainer}
    trainer = Trainer(**arguments)
    seed_everything(trainer.seed)
    data = load(config.data, config.model, config.training)
    model = build(data, config.model, config.training)
    trainer.fit(model, datamodule=data, ckpt_path=config.ckpt_path)
    run = trainer.run_dir
    if trainer.interrupted or run is None or not trainer.is_global_zero:
        return trainer  # stopped with its state saved; a trial; or not the first of several
    finish(model, data, run)  # temperature on validation, then the whole cases of the test part
    trainer.save_checkpoint(run / "model", weights_only=True)
    print(f"model     {run / 'model'}\nreport    {write_report(run)}")
    return trainer


if __name__ == "__main__":
    try:
        train(read_config())
    except RenshuError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
