"""A callback made of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from renshu.callbacks.callback import Callback
from renshu.errors import unknown

_HOOKS = ["setup", "teardown", *(n for n in vars(Callback) if n.startswith("on_"))]
_HOOKS.remove("on_interval")  # means nothing without an interval


class LambdaCallback(Callback):
    """Calls the given functions: `LambdaCallback(on_fit_end=lambda trainer, module: …)`.

    Raises:
        ConfigError: a name that is no hook.
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if name not in _HOOKS:
                raise unknown("hook", name, _HOOKS, "LambdaCallback")
            if function is not None:
                setattr(self, name, function)
