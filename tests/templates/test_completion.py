"""What a shell offers after what has been typed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from programs import program
from renshu.cli.completion import SCRIPTS, following
from renshu.cli.main import COMMANDS

from .helpers import NAMES

Run = Callable[..., tuple[int, str, str]]


def test_what_may_follow_is_offered(run_dir: Path) -> None:
    assert following([]) == list(COMMANDS)
    assert following(["new"]) == NAMES
    assert "--docker" in following(["new", "blank", "rivers"])
    assert "image_classification" in following(["train"])
    options = following(["train", "image_classification", "--data.path", "x"])
    assert {"--data.path", "--trainer.max_epochs"} <= set(options)
    assert following(["evaluate"]) == []
    (run_dir / "runs" / "first").mkdir(parents=True)
    (run_dir / "runs" / "first" / "config.yaml").touch()
    assert following(["evaluate"]) == ["first"]
    assert following(["nonsense"]) == []


def test_a_script_for_each_shell_and_no_other(renshu: Run) -> None:
    for shell in SCRIPTS:
        code, said, _ = renshu("completion", shell)
        assert (code, "renshu completion words" in said) == (0, True)
    code, _, error = renshu("completion", "powershell")
    assert code == 2
    assert "bash" in error
    assert "example" in renshu("completion", "--help")[1]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_each_shell_reads_its_script(shell: str) -> None:
    done = subprocess.run(
        [program(shell), "-n", "-c", SCRIPTS[shell]], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_bash_completes(run_dir: Path) -> None:
    script = f"""{SCRIPTS["bash"]}
COMP_WORDS=(renshu train image_classification --data.pa); COMP_CWORD=3; _renshu
echo "${{COMPREPLY[@]}}"
COMP_WORDS=(renshu train nonsense --data.pa); COMP_CWORD=3; _renshu
echo "${{COMPREPLY[@]}}"
"""
    assert bash(script) == "--data.path\n\n"


def test_bash_completes_names_of_runs_and_expands_none(run_dir: Path) -> None:
    """What is inserted is quoted, so that neither TAB nor the line itself runs a name."""
    names = ["$(touch own)", "*", "`touch own`", "my run", "my second"]
    for name in names:
        (run_dir / "runs" / name).mkdir(parents=True)
        (run_dir / "runs" / name / "config.yaml").touch()
    script = f"""{SCRIPTS["bash"]}
COMP_WORDS=(renshu report ""); COMP_CWORD=2; _renshu
eval "printf '%s\\n' ${{COMPREPLY[*]}}"
COMP_WORDS=(renshu report 'my\\ r'); COMP_CWORD=2; _renshu
echo "${{#COMPREPLY[@]}} ${{COMPREPLY[0]}}"
"""
    assert bash(script).splitlines() == [*sorted(names), "1 my\\ run"]
    assert not (run_dir / "own").exists()


def test_zsh_completes(run_dir: Path) -> None:
    """What is handed to compadd, which keeps what begins as typed and quotes it."""
    (run_dir / "runs" / "$(touch own)").mkdir(parents=True)
    (run_dir / "runs" / "$(touch own)" / "config.yaml").touch()
    script = f"""compdef() {{ }}
compadd() {{ shift; print -rl -- "$@" }}
{SCRIPTS["zsh"]}
words=(renshu train image_classification --data.pa); CURRENT=4; _renshu
words=(renshu report ''); CURRENT=3; _renshu
"""
    lines = shell("zsh", "-f", "-c", script).splitlines()
    assert "--data.path" in lines
    assert lines[-1] == "$(touch own)"
    assert not (run_dir / "own").exists()


def test_fish_completes(run_dir: Path) -> None:
    (run_dir / "runs" / "$(touch own)").mkdir(parents=True)
    (run_dir / "runs" / "$(touch own)" / "config.yaml").touch()
    typed = ("train image_classification --data.pa", "report ", "doc")
    asked = "\n".join(f"complete -C 'renshu {words}'" for words in typed)
    lines = shell("fish", "--no-config", "-c", f"{SCRIPTS['fish']}\n{asked}").splitlines()
    assert {"--data.path", "$(touch own)", "doctor"} <= set(lines)  # and names of files
    assert not (run_dir / "own").exists()


def bash(script: str) -> str:
    """What a script of bash prints."""
    return shell("bash", "-c", script)


def shell(name: str, *arguments: str) -> str:
    """What a shell prints, with the `renshu` of this Python."""
    home = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{home}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr == ""
    return done.stdout
