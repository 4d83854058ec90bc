"""What a task offers to the command line. Its parts are named, and imported when used."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from renshu.errors import ConfigError, unknown

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]


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
    - `bench(arguments, tell) -> int`: `renshu bench` for this task: its own arguments, a function
      that shows a line, and the exit code; "" for a task without a benchmark
    - `check(options) -> list[str]`: what the data are like, a line each, for `renshu check-data`;
      a task need not have it
    - `exports`, format → `write(module, data, folder) -> Exported`: fill an empty folder with a
      model that runs without renshu; `renshu export --to FORMAT` checks it before it is kept
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
    bench: str = ""
    check: str = ""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exports: Mapping[str, str] = field(default_factory=dict)

    def load(self, part: str) -> Any:
        """What stands behind one of the names above; a missing package is a ConfigError."""
        return self._resolve(getattr(self, part))

    def exporter(self, form: str) -> Any:
        """The function that writes this format; ConfigError with the formats there are."""
        if form not in self.exports:
            raise unknown(f"format of {self.name}", form, self.exports)
        return self._resolve(self.exports[form])

    def _resolve(self, name: str) -> Any:
        try:
            return pkgutil.resolve_name(name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("renshu", "renshu_tasks"):
                raise
            said = f"{self.name} needs the package {error.name!r}, which is not installed"
            raise ConfigError(said, mend=f'pip install "renshu[{self.extra}]"') from error


@dataclass(frozen=True)
class Case:
    """One batch that both the module and the exported model see.

    Attributes:
        name: what messages call it; also the name of a file.
        inputs: what the exported model's `model.py` takes.
        outputs: what the module gave for it, in this process.
        texts: further input, for models that read text.
        evaluation: whether its rows belong to the evaluated part, over which the metric is taken.
            Other cases try sizes and lengths that were not seen when the model was written; they
            stay in the folder to check it by, so they must not hold anybody's data.
    """

    name: str
    inputs: Arrays
    outputs: Arrays
    texts: Sequence[str] = ()
    evaluation: bool = False


@dataclass(frozen=True)
class Exported:
    """How a written model has to behave.

    Attributes:
        cases: made one at a time, so that a large part needs no large memory.
        metric: from the outputs of the evaluation cases, in their order, to named figures.
        tolerance: largest difference allowed in an output and in a figure.
    """

    cases: Iterable[Case]
    metric: Callable[[Iterator[Arrays]], dict[str, float]]
    tolerance: float = 1e-5


def find_task(name: str) -> Task:
    """The installed task of that name; raises ConfigError with the names there are."""
    found = {point.name: point for point in entry_points(group="renshu.tasks")}
    if name not in found:
        raise unknown("task", name, sorted(found))
    return found[name].load()
