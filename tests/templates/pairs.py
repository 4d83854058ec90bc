"""Combinations of answers in which every pair of two options' values occurs."""

from __future__ import annotations

from itertools import combinations

from allpairspy import AllPairs

from renshu.errors import ConfigError
from renshu_templates.answers import Answers
from renshu_templates.template import Template

Pair = frozenset[tuple[str, object]]


def combinations_of(template: Template) -> list[Answers]:
    """As few complete answers as hold every pair of values that may stand together."""
    values = {
        key: [True, False] if isinstance(question.default, bool) else list(question.choices)
        for key, question in template.questions.items()
        if question.choices
    }

    def may_stand(row: list[object]) -> bool:
        """Whether the values so far, of the first options, exclude each other."""
        given = dict(zip(values, row, strict=False))
        return all(
            answer in (False, "none") or given.get(other, allowed[0]) in allowed
            for key, answer in given.items()
            for other, allowed in template.rules["needs"].get(key, {}).items()
        )

    rows = AllPairs(list(values.values()), filter_func=may_stand)
    return [
        template.complete({"name": f"combination-{number}", **dict(zip(values, row, strict=True))})
        for number, row in enumerate(rows)
    ]


def pairs(answers: Answers, keys: set[str]) -> set[Pair]:
    """The pairs of values in some answers."""
    chosen = [(key, value) for key, value in answers.items() if key in keys]
    return {frozenset(pair) for pair in combinations(chosen, 2)}


def possible_pairs(template: Template) -> set[Pair]:
    """Every pair that the template does not refuse, found by asking it."""
    keys = {key for key, question in template.questions.items() if question.choices}
    found = set()
    for a, b in combinations(sorted(keys), 2):
        for x in _values(template, a):
            for y in _values(template, b):
                given = {"docker": "cpu"} | {"name": "x", a: x, b: y}
                try:
                    template.complete(given)
                except ConfigError:
                    continue
                found.add(frozenset([(a, x), (b, y)]))
    return found


def _values(template: Template, key: str) -> list[object]:
    question = template.questions[key]
    return [True, False] if isinstance(question.default, bool) else list(question.choices)
