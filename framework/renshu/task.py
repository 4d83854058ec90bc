"""What a task offers to the command line. Its parts are named, and imported when used."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from renshu.errors import ConfigError, unknown


@dataclass(frozen=True)
class Task:
    """One kind of application, found through the entry-point group `renshu.tasks`.

    The strings are `"package.module:function"`; `load` imports one when it is needed. With
    `options` an instance of the class `options`:

    - `data(options) -> DataModule`
    - `module(options, data) -> Module`
    - `module_class`: the class of that module, whose `load_from_checkpoint` brings it back
    - `callbacks(options) -> list[Callback]`
    - `precision(accelerator) -> str`: what the option `trainer.precision` means by "auto" here
    - `finish(module, data, run_dir) -> None`: what is chosen on the validation part after training
      and stored with the model (temperature, thresholds)
    - `evaluate(module, data, split, run_dir) -> dict`: measure a part and write what was found
    - `predict(module, files, options) -> Iterator[dict]`: one row of columns a file, in order
    - `report(run_dir) -> list[Section]`: the task's sections of the run report
    """

    name: str
    summary: str
    extra: str
    options: type
    data: str
    module: str
    module_class: str
    callbacks: str
    precision: str
    finish: str
    evaluate: str
    predict: str
    report: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def load(self, part: str) -> Any:
        """What stands behind one of the names above; a missing package is a ConfigError."""
        try:
            return pkgutil.resolve_name(getattr(self, part))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("renshu", "renshu_tasks"):
                raise
            said = f"{self.name} needs the package {error.name!r}, which is not installed"
            raise ConfigError(said, mend=f'pip install "renshu[{self.extra}]"') from error


def find_task(name: str) -> Task:
    """The installed task of that name; raises ConfigError with the names there are."""
    found = {point.name: point for point in entry_points(group="renshu.tasks")}
    if name not in found:
        raise unknown("task", name, sorted(found))
    return found[name].load()
