"""What a task offers to the command line. Its parts are named, and imported when used."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from renshu.errors import ConfigError, near


@dataclass(frozen=True)
class Task:
    """One kind of application, found through the entry-point group `renshu.tasks`.

    The strings are `"package.module:function"`; `load` imports one when it is needed. With
    `options` an instance of the class `options`:

    - `data(options) -> DataModule`
    - `module(options, data) -> Module`
    - `callbacks(options) -> list[Callback]`
    - `finish(module, data, run_dir) -> None`: what is chosen on the validation part after training
      and stored with the model (temperature, thresholds)
    - `predict(module, files, options) -> Iterator[dict]`: one row of columns a file, in order
    - `report(run_dir) -> list[Section]`: the task's sections of the run report
    """

    name: str
    summary: str
    extra: str
    options: type
    data: str
    module: str
    callbacks: str
    finish: str
    predict: str
    report: str
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def load(self, part: str) -> Any:
        """The function behind one of the names above."""
        return pkgutil.resolve_name(getattr(self, part))


def find_task(name: str) -> Task:
    """The installed task of that name; raises ConfigError with the names there are."""
    found = {point.name: point for point in entry_points(group="renshu.tasks")}
    if name not in found:
        raise ConfigError(
            f"there is no task {name!r}",
            allowed=", ".join(sorted(found)) or "none is installed",
            mend=near(name, found),
        )
    return found[name].load()
