"""The merge by lines, against laws that hold for any texts and against git's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renshu_templates.merge import has_marks, merge, merge_requirements

TEXT = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n", "e\n"]), max_size=12).map("".join)


@given(base=TEXT, other=TEXT)
def test_a_side_that_changed_nothing_takes_the_other(base: str, other: str) -> None:
    assert merge(base, base, other) == (other, 0)
    assert merge(base, other, base) == (other, 0)
    assert merge(base, other, other) == (other, 0)


@given(base=TEXT, ours=TEXT, theirs=TEXT)
def test_the_sides_of_a_conflict_can_be_put_together_again(
    base: str, ours: str, theirs: str
) -> None:
    """Choosing one side in every conflict leaves no line of it out."""
    text, conflicts = merge(base, ours, theirs)
    assert has_marks(text) == bool(conflicts)
    back, _ = merge(base, theirs, ours)
    assert (merge(base, ours, theirs)[1] == 0) == (merge(base, theirs, ours)[1] == 0)
    if not conflicts:
        assert text == back
    kept, side = [], "all"
    for line in text.splitlines(keepends=True):
        if line.startswith("<<<<<<< "):
            side = "ours"
        elif line.startswith("||||||| "):
            side = "base"
        elif line == "=======\n":
            side = "theirs"
        elif line.startswith(">>>>>>> "):
            side = "all"
        elif side in ("all", "base"):
            kept.append(line)
    # With the base in each conflict, only changes of one side alone are left.
    assert merge(base, "".join(kept), base)[1] == 0


def test_changes_in_different_places_are_both_kept() -> None:
    base = "".join(f"{n}\n" for n in range(9))
    ours, theirs = base.replace("1\n", "one\n"), base.replace("7\n", "seven\n")
    assert merge(base, ours, theirs) == (ours.replace("7\n", "seven\n"), 0)


def test_a_conflict_shows_all_three_sides() -> None:
    # pains/templates.md row 6
    text, conflicts = merge("a\nb\nc\n", "a\nB\nc\n", "a\nbb\nc")
    assert conflicts == 1
    assert text == (
        "a\n<<<<<<< yours\nB\nc\n||||||| the template it was made from\nb\nc\n=======\nbb\nc\n"
        ">>>>>>> the new template\n"
    )


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(base=TEXT, ours=TEXT, theirs=TEXT)
def test_what_git_merges_without_a_conflict_is_merged_alike(
    base: str, ours: str, theirs: str, run_dir: Path
) -> None:
    """Where both find no conflict: the alignments may differ, so conflicts may be git's alone."""
    for name, text in (("ours", ours), ("base", base), ("theirs", theirs)):
        (run_dir / name).write_text(text, encoding="utf-8")
    command = ["git", "merge-file", "-p", "ours", "base", "theirs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text, conflicts = merge(base, ours, theirs)
    distinct = len(set(base.splitlines())) == len(base.splitlines())
    if done.returncode == 0 and conflicts == 0 and distinct:
        assert text == done.stdout


BASE = 'name = "x"\ndependencies = [\n    "numpy>=2",\n    "renshu>=0.1,<0.2",\n]\n'


def test_requirements_beside_each_other_are_merged_by_package() -> None:
    # pains/templates.md row 16
    ours = BASE.replace('    "numpy>=2",\n', '    "numpy>=2",\n    "pandas>=3",\n')
    theirs = BASE.replace("renshu>=0.1,<0.2", "renshu>=0.2,<0.3")
    assert merge(BASE, ours, theirs)[1] == 1
    text, conflicts = merge(*merge_requirements(BASE, ours, theirs))
    assert conflicts == 0
    assert text == ours.replace("renshu>=0.1,<0.2", "renshu>=0.2,<0.3")


def test_one_package_that_both_changed_is_a_conflict() -> None:
    ours, theirs = BASE.replace("numpy>=2", "numpy>=2.1"), BASE.replace("numpy>=2", "numpy>=3")
    text, conflicts = merge(*merge_requirements(BASE, ours, theirs))
    assert conflicts == 1
    assert "numpy>=2.1" in text
    assert "numpy>=3" in text


def test_a_package_keeps_all_its_lines() -> None:
    two = "".join(
        f"    \"numpy{bound}; python_version {mark} '3.12'\",\n"
        for bound, mark in (("<2", "<"), (">=2", ">="))
    )
    ours = BASE.replace('    "numpy>=2",\n', two)
    theirs = BASE.replace("renshu>=0.1,<0.2", "renshu>=0.2,<0.3")
    text, conflicts = merge(*merge_requirements(BASE, ours, theirs))
    assert (text, conflicts) == (ours.replace("renshu>=0.1,<0.2", "renshu>=0.2,<0.3"), 0)


def test_a_list_of_one_name_in_another_table_is_another_list() -> None:
    extra = '[project.optional-dependencies]\ndev = [\n    "pytest>=8",\n]\n'
    own = '[dependency-groups]\ndev = [\n    "pytest>=8",\n]\n'
    base, theirs = BASE + extra, BASE + extra.replace("pytest>=8", "pytest>=9")
    ours = BASE + own + extra
    text, conflicts = merge(*merge_requirements(base, ours, theirs))
    assert (text, conflicts) == (BASE + own + extra.replace("pytest>=8", "pytest>=9"), 0)
    only = merge_requirements(base, BASE + own, theirs)
    assert only == (base, BASE + own, theirs)
