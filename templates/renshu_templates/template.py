"""What a template is: a folder that cookiecutter reads, with rules for its answers and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from renshu.cli.yaml_file import read_mapping
from renshu.errors import ConfigError, unknown
from renshu_templates import place, render
from renshu_templates.answers import Answers, Question, check_needs, read_questions
from renshu_templates.apply import apply, finish
from renshu_templates.upgrade import ANSWERS, Change, plan
from renshu_templates.versions import folder_of

if TYPE_CHECKING:
    from renshu_templates.examine import Finding

OF_THE_PROJECT = ("template", "version")
"""Keys of a project's file that are no answers."""


@dataclass(frozen=True)
class Template:
    """One kind of project. A package of your own offers one through the group `renshu.templates`.

    Attributes:
        folder: holds `cookiecutter.json` (the questions), `template.toml` (summary, inputs of the
            tests), `files.toml` (which paths belong to which answer, and to whom) and the tree.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def about(self) -> dict[str, Any]:
        """template.toml."""
        return render.read_toml(self.folder / "template.toml")

    @cached_property
    def rules(self) -> dict[str, Any]:
        """files.toml."""
        return render.read_toml(self.folder / "files.toml")

    @property
    def summary(self) -> str:
        """What the project yields, in one line."""
        return self.about["summary"]

    @cached_property
    def questions(self) -> dict[str, Question]:
        """What is asked, by key, in order."""
        file = self.folder / "cookiecutter.json"
        return {q.key: q for q in read_questions(file, self.rules.get("defaults", {}))}

    def complete(self, given: Mapping[str, object], where: object = None) -> Answers:
        """Checked answers, with the default where none is given.

        `where` is the file that they come from; without it they are options. Raises ConfigError
        with the rule and a proposed repair.
        """
        for key in given:
            if key not in self.questions:
                raise unknown("option", key, self.questions, where)
        answers: Answers = {}
        for key, question in self.questions.items():
            place_of = f"{where}: {key}" if where else f"--{key}"
            value = given.get(key, question.default)
            answers[key] = question.check(value, place_of)
        check_needs(answers, self.rules.get("needs", {}))
        return answers

    def possible(self, key: str, answers: Mapping[str, object]) -> bool:
        """Whether the answers so far leave more than one answer for a question."""
        needs = self.rules.get("needs", {}).get(key, {})
        return all(answers.get(other) in allowed for other, allowed in needs.items())

    def ask(
        self, answers: Answers, read: Callable[[Question], str], tell: Callable[[str], object]
    ) -> None:
        """Fill in what is missing. A wrong answer is told with its rule, and asked for again.

        `read` gives what somebody answers to a question: the form may be a terminal or another.
        """
        for question in self.questions.values():
            while question.key not in answers and self.possible(question.key, answers):
                text = read(question)
                try:
                    answers[question.key] = question.check(text, question.key)
                except ConfigError as error:
                    tell(str(error))

    def files(self, answers: Answers) -> render.Files:
        """The project's files for complete answers."""
        return render.render(self.folder, answers)

    def tree(self, answers: Answers) -> list[str]:
        """The project's files and folders, a line each, indented by what they are in."""
        lines: dict[PurePosixPath, str] = {}
        for path in map(PurePosixPath, sorted(self.files(answers))):
            for part in [*reversed(path.parents[:-1]), path]:
                depth, kind = len(part.parts) - 1, "" if part == path else "/"
                lines[part] = f"{'  ' * depth}{part.name}{kind}"
        return list(lines.values())

    def create(self, answers: Answers, parent: Path) -> Path:
        """Make the project below `parent`; its folder, which is whole from the first moment."""
        target = parent / str(answers["name"])
        place.check_free(target)
        place.create(self.files(answers), target)
        return target

    @property
    def version(self) -> str:
        """The release of renshu that the template belongs to."""
        content = json.loads((self.folder / "cookiecutter.json").read_text(encoding="utf-8"))
        return content["_version"]

    def upgrade(
        self,
        project: Path,
        stored: Mapping[str, Any],
        changed: Mapping[str, object],
        *,
        restore: Collection[str] = (),
        dry_run: bool = False,
    ) -> list[Change]:
        """Move a project to this version and to `changed` answers; what happens to each file.

        `stored` is the content of the project's `.renshu.yaml`. The old and the new template are
        drawn and merged with what is there; with `dry_run` nothing is written. Raises ConfigError
        for a project of an unknown version, and where a merge could lose something.
        """
        if not dry_run and finish(project):
            stored = read_mapping(project / ANSWERS)  # it was among what was left to write
        answers = {key: value for key, value in stored.items() if key not in OF_THE_PROJECT}
        if changed.get("name", answers.get("name")) != answers.get("name"):
            raise ConfigError("a project keeps its name", where="--name", mend="renshu new")
        asked = str(stored.get("version"))
        with folder_of(self.folder, self.version, asked) as folder:
            old = Template(folder)
            base = old.files(old.complete(answers, project / ANSWERS))
        known = {key: value for key, value in answers.items() if key in self.questions}
        new = self.complete({**known, **changed})
        changes = plan(project, base, self.files(new), self.rules.get("ownership", {}), restore)
        if not dry_run:
            apply(changes, project)
        return changes

    def examine(self, project: Path, stored: Mapping[str, Any]) -> Iterator[Finding]:
        """What is right and wrong with a project; see `examine.Finding`."""
        from renshu_templates.examine import examine

        return examine(self, project, stored)
