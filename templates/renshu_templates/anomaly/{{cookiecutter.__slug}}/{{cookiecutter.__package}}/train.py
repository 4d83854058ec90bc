"""Learn what is usual, choose the threshold on held-out normal points, measure the rest once.

`python -m {{ cookiecutter.__package }}.train --help` lists every option.
"""

import sys
from typing import Any

from renshu import Trainer, seed_everything
from renshu.callbacks import EarlyStopping, ModelCheckpoint
from renshu.errors import RenshuError
from renshu.report import write_report
from renshu_tasks.anomaly.module import finish

from {{ cookiecutter.__package }}.config import Config, SaveConfig, read_config
from {{ cookiecutter.__package }}.data import load
from {{ cookiecutter.__package }}.model import Detector, build


def train(config: Config) -> Trainer:
    """Train as configured; the run's folder holds the model, its figures and a report."""
    data = load(config.data)
    model = build(data, config.model, config.training)
    best = ModelCheckpoint(monitor="val_loss", save_last=True)
    stop = EarlyStopping("val_loss", patience=config.training.patience)
    callbacks = [stop, best] if model.neural else []  # the others are fitted in one step
    save = SaveConfig(config, "anomaly")
    arguments: dict[str, Any] = {"callbacks": [*callbacks, save], **config.trainer}
    trainer = Trainer(**arguments)
    seed_everything(trainer.seed)
    trainer.fit(model, datamodule=data, ckpt_path=config.ckpt_path)
    run = trainer.run_dir
    if trainer.interrupted or run is None or not trainer.is_global_zero:
        return trainer  # stopped with its state saved; a trial; or not the first of several
    if best.best_model_path:
        model.load_state_dict(Detector.load_from_checkpoint(best.best_model_path).state_dict())
    finish(model, data, run)  # threshold and p-values on the held-out points, then the test part
    trainer.save_checkpoint(run / "model", weights_only=True)
    print(f"model     {run / 'model'}\nreport    {write_report(run)}")
    return trainer


if __name__ == "__main__":
    try:
        train(read_config())
    except RenshuError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
