"""Every public name of the installed Lightning is listed in tests/surface.json, truly."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from surface import FILE, has, lacking, ours, surfaces

SURFACE: dict[str, Any] = json.loads(FILE.read_text())
LIGHTNING = surfaces()


# capabilities B7
def test_every_section_is_listed() -> None:
    assert SURFACE.keys() == LIGHTNING.keys()


@pytest.mark.parametrize("section", LIGHTNING)
def test_every_public_name_is_listed_once(section: str) -> None:
    lists = SURFACE[section]
    assert [*lists] == ["same", "better", "refused", "missing"]
    listed = [name for names in lists.values() for name in names if "(" not in name]
    assert sorted(listed) == sorted(LIGHTNING[section])


@pytest.mark.parametrize("section", LIGHTNING)
def test_what_is_called_the_same_is_there_with_the_same_arguments(section: str) -> None:
    lists = SURFACE[section]
    others = {*lists["better"], *lists["refused"], *lists["missing"]}
    for name in lists["same"]:
        assert has(section, name), name
        unlisted = {*lacking(section, name, LIGHTNING[section][name])} - others
        assert not unlisted, unlisted


@pytest.mark.parametrize("section", LIGHTNING)
def test_what_is_called_missing_is_missing(section: str) -> None:
    names = [name for name in SURFACE[section]["missing"] if "(" not in name]
    built = [name for name in names if has(section, name)]
    assert not built, f"built by now: run tests/parity/surface.py: {built}"


@pytest.mark.parametrize("kind", ["better", "refused"])
@pytest.mark.parametrize("section", LIGHTNING)
def test_what_is_not_the_same_says_how_or_why(section: str, kind: str) -> None:
    for name, text in SURFACE[section][kind].items():
        assert len(text) > 10 and text != "not built yet", name


CLASSES = {name: name for name in ("renshu.LightningModule", "renshu.LightningDataModule")}


@pytest.mark.parametrize("section", ["renshu.Trainer", *CLASSES])
def test_a_refused_attribute_names_its_replacement(section: str) -> None:
    """What stands in backticks in surface.json has to stand in the error."""
    found = ours(section)
    thing = found() if isinstance(found, type) else found
    for name, text in (SURFACE[section]["refused"] | SURFACE[section]["better"]).items():
        if "(" not in name:
            with pytest.raises(AttributeError) as caught:
                getattr(thing, name)
            assert re.findall("`(.+?)`", text)[0] in str(caught.value), name
