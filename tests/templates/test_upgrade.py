"""`renshu upgrade`: the user's edits stay, the template's changes come, nothing is half applied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from renshu.errors import ConfigError
from renshu_templates.template import Template
from renshu_templates.upgrade import Change
from renshu_templates.versions import freeze

from .helpers import NAMES, find, tree

Run = Callable[..., tuple[int, str, str]]
GIT = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
TREE = "{{cookiecutter.__slug}}"


def git(folder: Path, *arguments: str) -> str:
    """One git command, as somebody."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def versions(tmp_path: Path, blank: Template) -> tuple[Template, Template]:
    """The same template in two releases: 0.1.0, and 0.2.0 in which six files have changed."""
    home = tmp_path / "releases" / "templates"
    old, new = home.parent / "old" / "blank", home / "blank"
    shutil.copytree(blank.folder, old)
    shutil.copytree(blank.folder, new)
    (home / "versions").mkdir()
    freeze(old.parent, home / "versions" / "0.1.0.zip")
    questions = json.loads((new / "cookiecutter.json").read_text(encoding="utf-8"))
    questions |= {"_version": "0.2.0", "badge": ["none", "green"]}
    (new / "cookiecutter.json").write_text(json.dumps(questions), encoding="utf-8")
    root = new / TREE
    edit(root / "README.md", "## Start", "## Begin")
    edit(root / "config.yaml", "width: 64 ", "width: 96 ")
    edit(root / "config.yaml", "max_epochs: 20", "max_epochs: 30")
    edit(root / "pyproject.toml", "scikit-learn>=1.7", "scikit-learn>=1.8")
    edit(root / "notebooks" / "explore.ipynb", "A short training", "A brief training")
    (root / "tests" / "test_more.py").write_text("def test_more(): ...\n", encoding="utf-8")
    (root / ".pre-commit-config.yaml").unlink()
    return Template(old), Template(new)


def edit(file: Path, old: str, new: str) -> None:
    """Replace text that must be there, as it stands, whatever the ends of lines."""
    content = file.read_bytes()
    assert old.encode() in content, (file, old)
    file.unlink()  # not what a link leads to
    file.write_bytes(content.replace(old.encode(), new.encode()))


def upgrade(template: Template, project: Path, **changed: object) -> dict[str, str]:
    """What happened to each file."""
    return kinds(template.upgrade(project, answers_of(project), changed))


def answers_of(project: Path) -> dict[str, object]:
    return yaml.safe_load((project / ".renshu.yaml").read_text(encoding="utf-8"))


def kinds(changes: list[Change]) -> dict[str, str]:
    return {change.path: change.kind for change in changes}


@pytest.fixture
def project(versions: tuple[Template, Template], tmp_path: Path) -> Path:
    """A project of the old version, in a path with spaces and letters of other scripts."""
    home = tmp_path / "mein Ordner 日本"
    home.mkdir()
    return versions[0].create(versions[0].complete({"name": "rivers"}), home)


UNTOUCHED = {
    ".pre-commit-config.yaml": "gone",
    ".renshu.yaml": "clean",
    "README.md": "clean",
    "config.yaml": "clean",
    "notebooks/explore.ipynb": "clean",
    "pyproject.toml": "clean",
    "tests/test_more.py": "new",
}


def test_an_untouched_project_becomes_what_the_new_template_makes(
    versions: tuple[Template, Template], project: Path, tmp_path: Path
) -> None:
    # pains/templates.md rows 4, 9 and 11
    new = versions[1]
    assert upgrade(new, project) == UNTOUCHED
    made = new.create(new.complete({"name": "rivers"}), tmp_path)
    assert tree(project) == tree(made)
    assert upgrade(new, project) == {}


def test_edits_stay_and_changes_of_the_template_come(
    versions: tuple[Template, Template], project: Path
) -> None:
    edit(project / "README.md", "# rivers", "# The rivers of Japan")
    edit(project / "config.yaml", "batch_size: 32 ", "batch_size: 8  ")
    edit(project / "pyproject.toml", '    "scikit', '    "pandas>=3,<4",\n    "scikit')
    edit(project / "notebooks" / "explore.ipynb", "A look at", "My look at")
    edit(project / "rivers" / "train.py", "Train,", "Teach,")
    before = tree(project)
    found = upgrade(versions[1], project)
    assert found == UNTOUCHED | {
        **dict.fromkeys(("README.md", "config.yaml", "pyproject.toml"), "merged"),
        "notebooks/explore.ipynb": "kept",
    }
    after = {path: content.decode() for path, content in tree(project).items()}
    assert "# The rivers of Japan" in after["README.md"]
    assert "## Begin" in after["README.md"]
    assert "batch_size: 8 " in after["config.yaml"]
    assert "width: 96" in after["config.yaml"]
    assert '    "pandas>=3,<4",\n' in after["pyproject.toml"]
    assert "scikit-learn>=1.8" in after["pyproject.toml"]
    for path in ("notebooks/explore.ipynb", "rivers/train.py"):
        assert after[path].encode() == before[path]


def test_a_conflict_is_marked_listed_and_gives_exit_code_1(
    versions: tuple[Template, Template],
    project: Path,
    renshu: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pains/templates.md rows 5 to 7
    edit(project / "config.yaml", "max_epochs: 20", "max_epochs: 5")
    monkeypatch.setattr("renshu.cli.upgrade.find_template", lambda name: versions[1])
    assert renshu("upgrade", "--project", str(project), "--dry-run")[0] == 1
    code, said, _ = renshu("upgrade", "--project", str(project))
    assert code == 1
    assert "conflict config.yaml" in said
    text = (project / "config.yaml").read_text(encoding="utf-8")
    begin, middle, end = (
        text.index("<<<<<<< yours"),
        text.index("\n=======\n"),
        text.index(">>>>>>>"),
    )
    assert "max_epochs: 5" in text[begin : text.index("||||||| the template it was made from")]
    assert "max_epochs: 20" in text[begin:middle]
    assert "max_epochs: 30" in text[middle:end]
    assert not list(project.rglob("*.rej"))
    assert not list(project.rglob("*.orig"))
    assert answers_of(project)["version"] == "0.2.0"


def test_a_conflict_that_is_not_settled_stops_the_next_upgrade(
    versions: tuple[Template, Template], project: Path
) -> None:
    edit(project / "config.yaml", "max_epochs: 20", "max_epochs: 5")
    upgrade(versions[1], project)
    before = tree(project)
    with pytest.raises(ConfigError, match="not settled"):
        upgrade(versions[1], project, logger="wandb")
    assert tree(project) == before


def test_a_dry_run_says_what_the_run_then_does_and_writes_nothing(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 17
    edit(project / "config.yaml", "max_epochs: 20", "max_epochs: 5")
    edit(project / "README.md", "# rivers", "# The rivers of Japan")
    before = tree(project)
    stored = answers_of(project)
    planned = versions[1].upgrade(project, stored, {"docker": "cuda"}, dry_run=True)
    assert tree(project) == before
    assert versions[1].upgrade(project, stored, {"docker": "cuda"}) == planned
    assert {change.kind for change in planned} == {"new", "clean", "merged", "conflict", "gone"}


def test_what_was_deleted_stays_deleted_until_it_is_asked_back(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 10
    new = versions[1]
    (project / "config.yaml").unlink()
    (project / "LICENSE").unlink()  # the same in both versions
    assert upgrade(new, project) == UNTOUCHED | {"config.yaml": "kept"}
    assert not (project / "config.yaml").exists()
    changes = new.upgrade(project, answers_of(project), {}, restore=["LICENSE", "config.yaml"])
    assert kinds(changes) == {"LICENSE": "new", "config.yaml": "new"}
    assert "width: 96" in (project / "config.yaml").read_text(encoding="utf-8")
    for wrong in ("config.yaml", "nothing.txt", "../outside"):
        with pytest.raises(ConfigError):
            new.upgrade(project, answers_of(project), {}, restore=[wrong])


def test_a_changed_file_that_the_template_gave_up_is_kept(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 11
    edit(project / ".pre-commit-config.yaml", "ruff check", "my check")
    found = upgrade(versions[1], project)
    assert found[".pre-commit-config.yaml"] == "kept"
    assert (project / ".pre-commit-config.yaml").exists()


def test_files_outside_the_template_are_not_touched(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md rows 12 and 14
    own = {
        "data/a.bin": bytes(range(256)),
        "runs/1/metrics.csv": b"a\r\n1\r\n",
        "rivers/own.py": b"x",
    }
    for path, content in own.items():
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_bytes(content)
        os.utime(project / path, ns=(1, 1))
    upgrade(versions[1], project, docker="none")
    for path, content in own.items():
        assert (project / path).read_bytes() == content
        assert (project / path).stat().st_mtime_ns == 1
    assert not list(project.glob(".renshu-upgrade*"))


def test_a_checkout_with_crlf_merges_and_keeps_its_ends_of_lines(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 26
    edit(project / "README.md", "# rivers", "# The rivers of Japan")
    for path, content in tree(project).items():
        (project / path).write_bytes(content.replace(b"\n", b"\r\n"))
    found = upgrade(versions[1], project)
    assert found == UNTOUCHED | {"README.md": "merged"}
    for path, content in tree(project).items():
        if path != "tests/test_more.py":
            assert content.count(b"\r\n") == content.count(b"\n"), path


def test_in_a_file_of_mixed_ends_of_lines_each_line_keeps_its_own(
    versions: tuple[Template, Template], project: Path
) -> None:
    edit(project / "README.md", "# rivers\n", "# rivers\r\n")
    before = (project / "README.md").read_bytes()
    assert upgrade(versions[1], project)["README.md"] == "merged"
    after = (project / "README.md").read_bytes()
    assert after == before.replace(b"## Start", b"## Begin")
    assert after.count(b"\r\n") == 1


def test_a_link_inside_the_project_stays_one(
    versions: tuple[Template, Template], project: Path
) -> None:
    (project / "settings").mkdir()
    (project / "config.yaml").rename(project / "settings" / "mine.yaml")
    (project / "config.yaml").symlink_to("settings/mine.yaml")
    assert upgrade(versions[1], project)["config.yaml"] == "clean"
    assert (project / "config.yaml").is_symlink()
    assert "width: 96" in (project / "settings" / "mine.yaml").read_text(encoding="utf-8")


def test_an_answer_is_changed_and_changed_back(template: Template, tmp_path: Path) -> None:
    made = template.create(template.complete({"name": "rivers"}), tmp_path)
    before = tree(made)
    changed = {"docker": "cuda", "serving": "fastapi", "slurm": True, "logger": "mlflow"}
    found = upgrade(template, made, **changed)
    assert found["rivers/serve.py"] == found["deploy/slurm.sh"] == "new"
    assert found["Dockerfile"] == "clean"
    (tmp_path / "second").mkdir()
    fresh = template.create(template.complete({"name": "rivers", **changed}), tmp_path / "second")
    assert tree(made) == tree(fresh)
    upgrade(template, made, docker="cpu", serving="none", slurm=False, logger="csv")
    assert tree(made) == before
    assert not (made / "deploy").exists()


def test_a_project_of_every_template_can_be_upgraded(template: Template, tmp_path: Path) -> None:
    made = template.create(template.complete({"name": "rivers"}), tmp_path)
    assert upgrade(template, made) == {}


WRONG_STORED = [
    ({"version": "0.0.1"}, "0.0.1"),
    ({"version": "9.0.0"}, "pip install --upgrade renshu"),
    ({"docker": "gpu"}, "cpu, cuda, none"),
    ({"name": "other"}, "nothing"),
]


@pytest.mark.parametrize(("stored", "hint"), WRONG_STORED[:3])
def test_a_project_of_an_unknown_version_or_answer_is_refused(
    versions: tuple[Template, Template], project: Path, stored: dict[str, object], hint: str
) -> None:
    # pains/templates.md row 15
    before = tree(project)
    with pytest.raises(ConfigError, match=hint):
        versions[1].upgrade(project, answers_of(project) | stored, {})
    assert tree(project) == before


def test_a_project_keeps_its_name(versions: tuple[Template, Template], project: Path) -> None:
    with pytest.raises(ConfigError, match="keeps its name"):
        upgrade(versions[1], project, name="lakes")


def test_where_no_project_is_the_command_says_so(renshu: Run, run_dir: Path) -> None:
    code, _, error = renshu("upgrade")
    assert code == 2
    assert "no project that renshu made" in error
    Path(".renshu.yaml").write_text("name: x\n", encoding="utf-8")
    code, _, error = renshu("upgrade")
    assert code == 2
    assert "template: and version:" in error


def test_a_link_that_leads_out_of_the_project_is_refused(
    versions: tuple[Template, Template], project: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(project / "tests")
    (project / "tests").symlink_to(outside)
    with pytest.raises(ConfigError, match="leads out"):
        upgrade(versions[1], project)
    assert not list(outside.iterdir())


FOREIGN_STEPS = [
    ["0", "../victim.txt"],
    ["0", "{outside}/victim.txt"],
    [None, "{outside}/victim.txt"],
    ["0", "tests/../../victim.txt"],
    ["0", "link/victim.txt"],
    ["0", ".git/hooks/post-commit"],
    ["0", "."],
    ["../README.md", "new.txt"],
    ["1", "new.txt"],
    [0, "new.txt"],
    "no step",
]


@pytest.mark.parametrize("step", FOREIGN_STEPS, ids=str)
def test_a_journal_that_came_with_a_cloned_repository_is_refused(
    versions: tuple[Template, Template], project: Path, step: list[str | None] | str
) -> None:
    outside = project.parent
    (outside / "victim.txt").write_text("mine", encoding="utf-8")
    (project / "link").symlink_to(outside)
    journal = project / ".renshu-upgrade"
    journal.mkdir()
    (journal / "0").write_text("theirs", encoding="utf-8")
    (journal / "1").symlink_to(outside / "victim.txt")
    fine = ["0", "README.md"]  # not even this is done
    steps = json.dumps([fine, step]).replace("{outside}", str(outside))
    (journal / "steps.json").write_text(steps, encoding="utf-8")
    before = tree(outside)
    with pytest.raises(ConfigError, match="no upgrade of renshu"):
        upgrade(versions[1], project)
    assert tree(outside) == before


# A child for each point, as in test_place.py; then `upgrade` once more, by a process that lives.
KILLED = """
import os, shutil, sys, yaml
from pathlib import Path
from renshu_templates.template import Template
template, project = Template(Path(sys.argv[1])), Path(sys.argv[2])
def tree(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
stored = yaml.safe_load((project / ".renshu.yaml").read_text("utf-8"))
changes = template.upgrade(project, stored, {"docker": "none"}, dry_run=True)
import renshu_templates.apply as apply
before, ends, point = tree(project), set(), 0
while True:
    point += 1
    copy = Path(f"copy-{point}")
    shutil.copytree(project, copy)
    child = os.fork()
    if child == 0:
        left = point
        def watch(event, arguments):
            global left
            if event in ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree"):
                left -= 1
                if left == 0:
                    os._exit(9)
        sys.addaudithook(watch)
        apply.apply(changes, copy)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    apply.finish(copy)
    shutil.rmtree(copy / ".renshu-upgrade.tmp", ignore_errors=True)
    ends.add(tuple(sorted(tree(copy).items())))
    if code == 0:
        break
assert len(ends) == 2, len(ends)
assert tuple(sorted(before.items())) in ends
print(point)
"""


def test_killed_at_any_point_the_upgrade_is_not_begun_or_is_finished(
    versions: tuple[Template, Template], project: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(versions[1].folder), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_the_command_again_after_a_kill_keeps_what_was_asked_for(
    versions: tuple[Template, Template],
    project: Path,
    renshu: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("renshu.cli.upgrade.find_template", lambda name: versions[1])
    with monkeypatch.context() as patch:  # stopped when all is prepared and nothing is moved
        patch.setattr("renshu_templates.apply.finish", lambda project: False)
        renshu("upgrade", "--project", str(project), "--docker", "cuda")
    assert answers_of(project)["docker"] == "cpu"
    code, said, _ = renshu("upgrade", "--project", str(project))
    assert (code, "nothing to do" in said) == (0, True)
    assert answers_of(project)["docker"] == "cuda"
    assert answers_of(project)["version"] == "0.2.0"


@GIT
def test_in_a_sub_folder_of_a_repository_with_untracked_files(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 13
    home = project.parent
    git(home, "init", "-q")
    (home / "other.txt").write_text("of another project\n", encoding="utf-8")
    git(home, "add", "-A")
    git(home, "commit", "-qm", "all")
    (home / "other.txt").write_text("changed, and none of ours\n", encoding="utf-8")
    (project / "notes.txt").write_text("untracked\n", encoding="utf-8")
    edit(project / "rivers" / "train.py", "Train,", "Teach,")  # tracked, and not touched
    assert upgrade(versions[1], project) == UNTOUCHED
    git(home, "checkout", "-q", "--", "rivers/config.yaml")
    edit(project / "config.yaml", "max_epochs: 20", "max_epochs: 5")
    with pytest.raises(ConfigError, match="not committed") as caught:
        upgrade(versions[1], project, logger="wandb")
    assert "config.yaml" in str(caught.value.where)
    assert "train.py" not in str(caught.value.where)


@GIT
def test_git_sees_a_conflict_with_three_different_sides(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 8
    edit(project / "config.yaml", "max_epochs: 20", "max_epochs: 5")
    git(project.parent, "init", "-q")
    git(project.parent, "add", "-A")
    git(project.parent, "commit", "-qm", "all")
    assert upgrade(versions[1], project)["config.yaml"] == "conflict"
    rows = [line.split() for line in git(project, "ls-files", "-u").splitlines()]
    assert [(row[2], row[3]) for row in rows] == [(n, "config.yaml") for n in "123"]
    assert len({row[1] for row in rows}) == 3
    assert "max_epochs: 5" in git(project, "show", ":2:./config.yaml")
    assert git(project, "diff", "--name-only", "--diff-filter=U").strip() == "rivers/config.yaml"


@GIT
def test_a_file_that_git_ignores_is_never_written(
    versions: tuple[Template, Template], project: Path
) -> None:
    # pains/templates.md row 19
    git(project, "init", "-q")
    with (project / ".gitignore").open("a", encoding="utf-8") as file:
        file.write("config.yaml\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "all")
    before = (project / "config.yaml").read_bytes()
    assert upgrade(versions[1], project) == UNTOUCHED | {"config.yaml": "kept"}
    assert (project / "config.yaml").read_bytes() == before


@GIT
def test_where_git_fails_nothing_is_written(
    versions: tuple[Template, Template], project: Path
) -> None:
    """As in a container whose user does not own the folder: what is ignored cannot be told."""
    git(project, "init", "-q")
    (project / ".git" / "config").write_text("[nonsense", encoding="utf-8")
    before = tree(project)
    with pytest.raises(ConfigError, match="git fails: .*bad config"):
        upgrade(versions[1], project)
    assert tree(project) == before


def test_an_archive_of_the_templates_stands_alone_and_is_the_same_each_time(tmp_path: Path) -> None:
    folder = find("blank").folder.parent
    freeze(folder, tmp_path / "0.1.0.zip")
    freeze(folder, tmp_path / "again.zip")
    assert (tmp_path / "0.1.0.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    shutil.unpack_archive(tmp_path / "0.1.0.zip", tmp_path / "out")
    for name in NAMES:
        alone, installed = Template(tmp_path / "out" / name), find(name)
        answers = installed.complete({"name": "rivers"})
        assert alone.files(answers) == installed.files(answers)
