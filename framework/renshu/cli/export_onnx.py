"""ONNX files for every task's exporter: dynamic sizes, named outputs."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from renshu.errors import ConfigError, RunError

_MODEL = Path(__file__).with_name("export_onnx_model.py")
_LARGEST = 1_900_000_000
"""Bytes of weights from which they lie in a file of their own: protobuf ends at 2 GB."""


def write_onnx(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, str]],
    folder: Path,
) -> None:
    """Write `model.onnx`, and `model.py` that runs it with onnxruntime alone.

    Args:
        model: takes `inputs` by name and returns a dict of tensors; in evaluation mode.
        inputs: an example. A size of 1 would be taken for a constant, so give at least 2 of
            whatever is dynamic.
        dynamic: input → dimension → its name; dimensions of one name are equal.
        folder: where the two files go.

    Raises:
        ConfigError: a package is missing.
        RunError: the model cannot be written; the exporter's words say which dimension or operator
            is at fault.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        said = f"ONNX needs the package {error.name!r}, which is not installed"
        raise ConfigError(said, mend="pip install onnx onnxruntime onnxscript") from error
    with torch.no_grad():
        outputs = list(model(**inputs))
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        try:
            torch.onnx.export(
                model,
                kwargs=dict(inputs),
                f=folder / "model.onnx",
                dynamic_shapes={name: dict(dynamic.get(name, {})) for name in inputs},
                input_names=list(inputs),
                output_names=outputs,
                external_data=weights > _LARGEST,
                verbose=False,
                dynamo=True,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = str(error.__cause__ or error).strip().splitlines()
            raise RunError(
                "the model cannot be written as ONNX",
                where="\n           ".join(cause[:6]),
                allowed="dynamic "
                + ", ".join(sorted({n for d in dynamic.values() for n in d.values()})),
            ) from error
    shutil.copyfile(_MODEL, folder / "model.py")
