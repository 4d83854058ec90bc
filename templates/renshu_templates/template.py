"""What a template is: a folder that cookiecutter reads, with rules for its answers and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from renshu.errors import unknown
from renshu_templates import place, render
from renshu_templates.answers import Answers, Question, check_needs, read_questions

ANSWERS = ".renshu.yaml"
"""The file in a project that says what it was made from."""


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

    def files(self, answers: Answers) -> render.Files:
        """The project's files for complete answers."""
        return render.render(self.folder, answers)

    def create(self, answers: Answers, parent: Path) -> Path:
        """Make the project below `parent`; its folder, which is whole from the first moment."""
        target = parent / str(answers["name"])
        place.check_free(target)
        place.create(self.files(answers), target)
        return target
