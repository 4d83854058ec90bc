"""config.yaml and the flags that replace its values; every key and type is checked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from renshu import Module, Trainer
from renshu.callbacks import Callback
from renshu.errors import ConfigError

from {{ cookiecutter.__package }}.data import DataOptions
from {{ cookiecutter.__package }}.model import ModelOptions, TrainingOptions


@dataclass(kw_only=True)
class Config:
    """Everything that a training can be told.

    Attributes:
        data: where the data come from, how they are split and loaded.
        model: which network.
        training: how it learns.
        trainer: arguments of renshu's Trainer, such as --trainer.max_epochs 3.
        ckpt_path: continue a run from its newest state (last), from best or from a path.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    trainer: dict[str, bool | int | float | str | None] = field(default_factory=dict)
    ckpt_path: str | None = None

    def save(self, file: Path, task: str | None = None) -> None:
        """Write the values to `file`; `task` lets the commands of renshu read the run as well."""
        values = {key: value for key, value in asdict(self).items() if key != "ckpt_path"}
        values = values if task is None else {"task": task} | values
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


class SaveConfig(Callback):
    """Puts config.yaml into the run before the first step: of a run that is stopped it is kept."""

    def __init__(self, config: Config, task: str | None = None) -> None:
        self.config, self.task = config, task

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        if trainer.run_dir is not None and trainer.is_global_zero:
            self.config.save(trainer.run_dir / "config.yaml", self.task)


def read_config(arguments: Sequence[str] | None = None) -> Config:
    """The values of config.yaml in the working directory, with flags instead where given.

    Raises ConfigError for keys that do not exist and values that are not allowed.
    """
    parser = ArgumentParser(
        default_config_files=["config.yaml"], allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="another file like config.yaml")
    parser.add_class_arguments(Config)
    try:
        values = vars(parser.instantiate(parser.parse_args(arguments)))
    except ArgumentError as error:
        raise ConfigError(str(error), where="config.yaml, or a flag") from error
    values.pop("config")
    return Config(**values)
