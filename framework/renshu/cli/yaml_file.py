"""YAML as renshu reads and writes it: plain scalars, lists and mappings, nothing else.

Refused, each with file and line: tags that build objects, aliases (a few bytes of them expand to
gigabytes), keys given twice, deep nesting, large files. `yes`, `no`, `12:30` and dates stay text,
unlike in YAML 1.1; `1e-3` is a number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from renshu.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 20

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.inf|\.nan")
_RESOLVERS = {
    "null": re.compile(r"null|~|"),
    "bool": re.compile(r"true|false"),
    "int": re.compile(r"[-+]?(0|[1-9]\d*)"),
    "float": _FLOAT,
}


class _Loader(yaml.SafeLoader):
    """A SafeLoader that builds nothing but plain values and counts what it reads."""

    yaml_implicit_resolvers: ClassVar = {
        None: [(_TAG + name, re.compile(rf"(?:{p.pattern})\Z")) for name, p in _RESOLVERS.items()]
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self._nodes += 1
        self._depth += 1
        alias = isinstance(event, yaml.AliasEvent)
        self._refuse(alias, "aliases (*name) are not read", event)
        self._refuse(self._nodes > MAX_NODES, f"more than {MAX_NODES} values", event)
        self._refuse(self._depth > MAX_DEPTH, f"more than {MAX_DEPTH} levels", event)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        self._refuse(node.tag not in _PLAIN, f"the tag {node.tag!r} is not read", node)
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            self._refuse(not isinstance(key, yaml.ScalarNode), "a key must be a word", key)
            self._refuse(key.value in seen, f"the key {key.value!r} is given twice", key)
            seen.add(key.value)
        return node

    def _refuse(self, wrong: bool, problem: str, place: Any) -> None:
        if wrong:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or this module's reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(
    _TAG + "float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), list("-+.0123456789")
)


def loads(text: str) -> Any:
    """Read YAML text; raises yaml.YAMLError with the line."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def dumps(value: Any) -> str:
    """Write plain values so that `loads` gives them back."""

    def dump(unicode: bool) -> str:
        return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=unicode, width=100)

    text = dump(unicode=True)
    # Written as they are, these would be read as the end of a line.
    return dump(unicode=False) if any(end in text for end in "\x85\u2028\u2029") else text


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a file whose top level is a mapping; raises ConfigError with file, line and reason."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the file: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8 text", where=path) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError("the file is too large", where=path, allowed=f"{MAX_BYTES} bytes")
    try:
        value = loads(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not readable as YAML: {problem}", where=f"{path}{line}") from error
    if not isinstance(value, dict):
        raise ConfigError("the file must hold keys and values", where=path, allowed="key: value")
    return value
