"""`renshu completion SHELL`: a script that lets a shell complete commands, tasks, runs, options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.cli import main, new
from renshu.cli.options import list_options
from renshu.cli.parser import task_names
from renshu.cli.trained import CommandParser
from renshu.task import find_task

if TYPE_CHECKING:
    from renshu.cli.main import Session

_WORDS = "renshu completion words"
SCRIPTS = {
    "bash": f"""_renshu() {{ local word now="${{COMP_WORDS[COMP_CWORD]}}"; COMPREPLY=()
while IFS= read -r word && [ -n "$word" ]; do printf -v word %q "$word"
[[ $word == "$now"* ]] && COMPREPLY+=("$word"); done < <({_WORDS} \\
"${{COMP_WORDS[@]:1:COMP_CWORD-1}}" 2>/dev/null); }}; complete -o default -F _renshu renshu""",
    "zsh": f"""_renshu() {{ local all=$({_WORDS} ${{words[2,CURRENT-1]}} 2>/dev/null)
compadd -- ${{(f)all}} || _files }}
compdef _renshu renshu""",
    "fish": f"complete -c renshu -a '({_WORDS} (commandline -opc)[2..] 2>/dev/null)'",
}
_EPILOG = 'example: eval "$(renshu completion bash)" in ~/.bashrc; renshu completion fish | source'


def run(arguments: Sequence[str], session: Session) -> int:
    """Print the script; `words …` prints what may follow the words before, which scripts call."""
    if arguments[:1] == ["words"]:
        print(*following(arguments[1:]), sep="\n")
        return 0
    parser = CommandParser("completion", __doc__ or "")
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=SCRIPTS)
    print(SCRIPTS[parser.parse_args(arguments).shell])
    return 0


def following(words: Sequence[str]) -> list[str]:
    """What may come after `renshu` and these words."""
    command, given = (words[0], words[1:]) if words else ("", ())
    if command == "train":
        return [f"--{key}" for key in list_options(find_task(given[0]))] if given else task_names()
    if command == "new":
        return new.words(given)
    if command in ("evaluate", "predict", "report", "export") and not given:
        return sorted(path.parent.name for path in Path("runs").glob("*/config.yaml"))
    if command == "completion" and not given:
        return list(SCRIPTS)
    return [] if command else list(main.COMMANDS)
