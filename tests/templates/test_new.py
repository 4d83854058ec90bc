"""`renshu new`: what is asked, what is refused, what is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from renshu_templates.template import Template

from .helpers import ALL, NAMES, find, tree

Run = Callable[..., tuple[int, str, str]]


def test_a_project_is_made_from_a_task_and_a_name_alone(renshu: Run, run_dir: Path) -> None:
    code, said, _ = renshu("new", "blank", "river-levels")
    assert code == 0
    assert "python -m river_levels.train" in said
    assert (run_dir / "river-levels" / "river_levels" / "train.py").is_file()


def test_a_dry_run_shows_the_tree_that_is_then_made(renshu: Run, run_dir: Path) -> None:
    code, said, _ = renshu("new", "blank", "rivers", "--dry-run", "--slurm", "yes")
    assert code == 0
    assert not list(run_dir.iterdir())
    renshu("new", "blank", "rivers", "--slurm", "yes")
    folders = [path for path in (run_dir / "rivers").rglob("*") if path.is_dir()]
    assert len(said.splitlines()) == len(folders) + len(tree(run_dir / "rivers"))
    assert "deploy/\n  slurm.sh\n" in said


def test_options_may_stand_before_the_words(renshu: Run, run_dir: Path) -> None:
    code, said, _ = renshu("new", "--dry-run", "blank", "rivers", "--slurm", "yes")
    assert (code, "slurm.sh" in said) == (0, True)
    code, _, _ = renshu("new", "blank", "--into", ".", "rivers", "--docker", "none")
    assert (code, (run_dir / "rivers" / "README.md").is_file()) == (0, True)


def test_help_shows_each_task_with_what_it_yields_and_its_options(renshu: Run) -> None:
    code, said, _ = renshu("new", "--help")
    assert code == 0
    assert all(find(name).summary in said for name in NAMES)
    code, said, _ = renshu("new", "blank", "--help")
    assert code == 0
    words = " ".join(said.split())
    assert "--docker … Dockerfile" in words
    assert "default: cpu" in words
    assert "example: renshu new" in words


def test_the_answers_of_a_project_make_the_same_project_again(
    renshu: Run, run_dir: Path, template: Template
) -> None:
    # pains/templates.md row 18
    text = 'Größe "x" \\ {{ y }} 😀'
    options = [
        "--description",
        text,
        "--author",
        "A 'B' C",
        "--docker",
        "cuda",
        "--logger",
        "wandb",
    ]
    renshu("new", template.name, "first", *options, *(f"--{k}={v}" for k, v in ALL.items()))
    (run_dir / "again").mkdir()
    made = str(run_dir / "first" / ".renshu.yaml")
    code, _, _ = renshu("new", "--answers", made, "--into", "again")
    assert code == 0
    assert tree(run_dir / "again" / "first") == tree(run_dir / "first")


def test_an_option_replaces_an_answer_of_the_file(renshu: Run, run_dir: Path) -> None:
    Path("answers.yaml").write_text("docker: none\nslurm: true\nlicense: mit\n", encoding="utf-8")
    renshu("new", "blank", "rivers", "--answers", "answers.yaml", "--license", "none")
    made = yaml.safe_load((run_dir / "rivers" / ".renshu.yaml").read_text(encoding="utf-8"))
    assert (made["docker"], made["slurm"], made["license"]) == ("none", True, "none")
    assert not (run_dir / "rivers" / "LICENSE").exists()


WRONG_ANSWERS = [
    ("docker: gpu", "docker", "cpu, cuda, none"),
    ("docker: 3", "docker", "cpu, cuda, none"),
    ("slurm: maybe", "slurm", "yes, no"),
    ("slurm: 2", "slurm", "yes, no"),
    ("description: [a, b]", "description", "text"),
    ("name: My Project", "name", "my-project"),
    ("dokcer: cpu", "dokcer", "docker"),
    ("docker: none\nkubernetes: true", "kubernetes", "docker cpu"),
    ("docker: [", "line", ""),
]


@pytest.mark.parametrize(("text", "key", "hint"), WRONG_ANSWERS)
def test_a_wrong_answer_in_a_file_is_named_with_file_and_key(
    renshu: Run, run_dir: Path, text: str, key: str, hint: str
) -> None:
    Path("answers.yaml").write_text(text, encoding="utf-8")
    code, _, error = renshu("new", "blank", "rivers", "--answers", "answers.yaml")
    assert code == 2
    assert "answers.yaml" in error or key == "kubernetes"
    assert key in error
    assert hint in error
    assert not (run_dir / "rivers").exists()


WRONG_OPTIONS = [
    (["imag_classification", "x"], "image_classification"),
    (["blank", "rivers", "--dokcer", "cpu"], "did you mean '--docker'?"),
    (["blank", "rivers", "--docker", "gpu"], "cpu, cuda, none"),
    (["blank", "rivers", "--slurm", "perhaps"], "yes, no"),
    (["blank", "rivers", "--docker", "none", "--kubernetes", "yes"], "--docker cpu"),
    (["blank", "two", "words"], "renshu new blank two-words"),
    (["blank"], "renshu new blank NAME"),
    ([], "renshu new TASK NAME"),
    (["blank", "rivers", "--answers", "nowhere.yaml"], "nowhere.yaml"),
    (["blank", "rivers", "--into", "nowhere"], "--into FOLDER"),
    (["blank", "rivers", "--description", "two\nlines"], "one line of printable text"),
    (["blank", "rivers", "--description", "x" * 201], "at most 200"),
]


@pytest.mark.parametrize(("arguments", "hint"), WRONG_OPTIONS)
def test_a_wrong_option_is_named_with_what_is_allowed(
    renshu: Run, run_dir: Path, arguments: list[str], hint: str
) -> None:
    code, _, error = renshu("new", *arguments)
    assert code == 2
    assert hint in error
    assert not list(run_dir.iterdir())


ASKING = """
import sys
from renshu.cli.main import main
sys.stdin.isatty = lambda: True
sys.exit(main(["new"]))
"""


def test_asking_meets_a_wrong_answer_at_once_and_asks_again(run_dir: Path) -> None:
    # pains/templates.md row 20: not after all the questions
    answers = ["blank", "My Project", "my-project", "", "", "mit", "csv", "none"]
    answers += ["github", "no", "none", "no"]  # without a Dockerfile Kubernetes is not asked for
    done = subprocess.run(
        [sys.executable, "-c", ASKING],
        input="\n".join(answers) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'My Project' cannot name a project" in done.stdout
    assert "call it 'my-project'" in done.stdout
    assert (run_dir / "my-project" / "LICENSE").read_text("utf-8").startswith("MIT License")
    assert not (run_dir / "my-project" / "Dockerfile").exists()


def test_answers_that_end_too_early_make_nothing(run_dir: Path) -> None:
    command = [sys.executable, "-c", ASKING]
    for typed in ("", "blank\nmy-project\n"):
        done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "answers ended" in done.stderr
    assert not list(run_dir.iterdir())


# Ends the process where anything is started or reached for; a hook of this kind cannot be taken
# off again, so the command runs in a process of its own.
WATCHED = """
import os, sys
FORBIDDEN = ("subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "pty.",
             "socket.connect", "socket.getaddrinfo")
def watch(event, arguments):
    if event.startswith(FORBIDDEN):
        sys.__stderr__.write(f"forbidden: {event} {arguments}\\n")
        os._exit(77)
sys.addaudithook(watch)
from renshu.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_making_a_project_starts_no_process_and_opens_no_connection(template: Template) -> None:
    # pains/templates.md rows 1, 2, 24 and 25
    command = [sys.executable, "-c", WATCHED, "new", template.name, "rivers"]
    command += [f"--{key}={value}" for key, value in ALL.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("rivers", ".renshu.yaml").is_file()


def test_the_guard_against_processes_sees_one() -> None:
    code = WATCHED.replace("from renshu", "os.system('true')\nfrom renshu")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "forbidden: os.system" in done.stderr) == (77, True)


def test_no_template_has_hooks(template: Template) -> None:
    assert not (template.folder / "hooks").exists()
    content = json.loads((template.folder / "cookiecutter.json").read_text(encoding="utf-8"))
    assert "_extensions" not in content


def test_a_project_is_made_as_a_module_of_python_without_the_program(run_dir: Path) -> None:
    # pains/templates.md row 26
    command = [sys.executable, "-m", "renshu", "new", "blank", "rivers"]
    folder = run_dir / "Pfad mit Größe 日本"
    folder.mkdir()
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "rivers" / "README.md").is_file()
