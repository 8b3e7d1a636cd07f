"""PAPER.md names functions, fields, recipes, commands and tests that exist, and leaves nothing of the paper out."""

import ast
import dataclasses
import re
import string
import typing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gear.cli import COMMANDS
from gear.config import Config
from gear.recipes import RECIPES

ROOT = Path(__file__).parent.parent
PAPER = (ROOT / "PAPER.md").read_text()
DAY = r"\d{4}-\d\d-\d\d"
OPEN = r"open(?: \(not built yet(?:: [\w, .-]+)?\))?"
VERDICTS = ("does not show", "shows", "holds here")  # from the worst
VERDICT = rf"(\d[a-z]?): ({'|'.join(VERDICTS)})"
SMALL = rf"in small \(RESULTS\.md, {VERDICT}(?:, {VERDICT})*\)"
STATUS = rf"(?:runs here|runs with data we lack|measured \(LOG\.md, {DAY}\)|{SMALL}|{OPEN})(?=$|[;:,])"
CODE = re.findall(r"`([^`\n]+)`", PAPER)
NAMED = [span.split(": ") for span in CODE if ".py: " in span]  # file, names


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    section = re.split(r"^## ", PAPER, flags=re.M)
    (found,) = [s for s in section if s.startswith(title)]
    lines = [line for line in found.splitlines() if line.startswith("| ") and not line.startswith("| in the paper")]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines if not line.startswith("| |")]


@cache
def defined(file: Path) -> frozenset[str]:
    """Functions, classes with their members, and constants of a module."""
    names: set[str] = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + t.id for t in targets if isinstance(t, ast.Name))

    walk(ast.parse(file.read_text()).body, "")
    return frozenset(names)


def test_files_and_what_it_names_in_them_exist() -> None:
    assert len(NAMED) > 150
    for file, names in NAMED:
        path = ROOT / file if file.startswith(("gear/", "bench/")) else ROOT / "tests" / file
        assert path.is_file(), file
        for name in names.split(", "):
            assert name in defined(path), f"{file}: {name}"


def test_every_other_path_exists() -> None:
    for span in CODE:
        if re.fullmatch(r"(gear|tests)/[\w/]*(\.py)?", span):
            assert (ROOT / span).exists(), span


def test_every_test_it_names_is_named_with_its_file() -> None:
    names = set(re.findall(r"\btest_\w+\b(?!\.py)", PAPER))
    assert len(names) > 50
    assert names == {name for _, said in NAMED for name in said.split(", ") if name.startswith("test_")}


def fields(kind: Any, prefix: str = "") -> set[str]:
    """The dotted paths of all fields, of every member of a union."""
    found: set[str] = set()
    for name, hint in typing.get_type_hints(kind).items():
        members = [m for m in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(m)]
        found.add(prefix + name)
        for member in members:
            found |= fields(member, f"{prefix}{name}.")
    return found


def test_fields_it_names_exist() -> None:
    parts = "|".join(name for name in fields(Config) if "." not in name)
    named = [span for span in CODE if re.fullmatch(rf"({parts})(\.\w+)*", span)]
    assert len(set(named)) > 15
    assert set(named) <= fields(Config)


def test_recipes_and_commands_it_names_exist() -> None:
    names = [span for span in CODE if re.fullmatch(r"(table\d\d|demo|llamagen|gear|warmup)-[\w.-]+", span)]
    assert len(names) > 8
    assert set(names) <= set(RECIPES)
    for span in CODE:
        if match := re.match(r"gear (\w+)(?: ([\w.-]+))?", span):
            assert match[1] in COMMANDS, span
            assert match[1] not in ("train", "plan") or match[2] in {*RECIPES, "RECIPE", None}, span


def test_every_equation_table_and_algorithm_has_its_line() -> None:
    first = [row[0] for row in rows("Equations")]
    assert [name.split(",")[0] for name in first] == [*(f"eq. {n}" for n in range(1, 13)), "Algorithm 1"]
    assert [row[0].split(",")[0] for row in rows("Tables")] == [f"Table {n}" for n in range(1, 20)]


def test_every_panel_of_every_figure_has_its_line() -> None:
    panels: dict[str, str] = {}
    for row in rows("Figures"):
        match = re.match(r"Fig\. (\d)([a-f])(?:-([a-f]))?,", row[0])
        assert match, row[0]
        letters = string.ascii_lowercase
        first, last = letters.index(match[2]), letters.index(match[3] or match[2])
        panels[match[1]] = panels.get(match[1], "") + letters[first : last + 1]
    assert panels == {"1": "ab", "2": "abc", "3": "ab", "4": "abcde", "5": "abcdef"}


def test_findings_are_numbered_and_say_where_they_are() -> None:
    findings = rows("Findings")
    assert [row[0] for row in findings] == [f"F{n}" for n in range(1, len(findings) + 1)]
    for row in findings:
        assert re.match(r"(abstract|sections?|appendix) ?[\dA-E]?[^:]*: ", row[1]), row[1]
    for part in ("section 2", "section 3.2", "section 4.1", "section 4.2", "section 4.3", "section 4.4", "section 5"):
        assert any(part.removeprefix("section ") in row[1] for row in findings), part
    assert all(f"appendix {letter}" in PAPER for letter in "ABCDE")


def test_every_mismatch_has_a_decision_in_order() -> None:
    found = rows("Where the paper")
    assert [row[0] for row in found] == [f"M{n}" for n in range(1, 19)]
    for row in found:
        assert len(row) == 5, row
        assert row[1]
        assert row[2]
        named = [span for span in re.findall(r"`([^`]+)`", row[3]) if span in fields(Config)]
        assert named or row[3].startswith(("none: ", "open", "every field")), row  # a field, or why there is none


@pytest.mark.parametrize("title", ["Equations", "Protocols", "Tables", "Figures", "Sections", "Findings"])
def test_every_line_has_a_status_and_what_is_built_a_place_and_a_test(title: str) -> None:
    width = 5 if title == "Findings" else 4
    for row in rows(title):
        assert len(row) == width, row
        here, test, status = row[-3:]
        assert re.match(STATUS, status), row
        assert status.startswith("open") or (here and "test_" in test), row


def test_what_is_measured_is_in_the_log_of_that_day() -> None:
    days = set(re.findall(rf"LOG\.md, ({DAY})", PAPER))
    log = (ROOT / "LOG.md").read_text()
    assert days
    assert all(re.search(rf"^## {day}$", log, re.M) for day in days)


def test_verdicts_are_those_of_the_results() -> None:
    """A claim with two rows has that of the worse one."""
    there, report = dict[str, list[str]](), (ROOT / "RESULTS.md").read_text()
    table = report.partition("<!-- evidence cpu verdicts -->")[2].partition("\n\n**")[0]
    for line in table.splitlines()[4:]:
        claim, *_, verdict = line.strip("|").split("|")
        there.setdefault(claim.split()[0], []).append(verdict.strip())
    told = [pair for whole in re.finditer(SMALL, PAPER) for pair in re.findall(VERDICT, whole[0])]
    assert told
    assert told == [(claim, min(there[claim], key=VERDICTS.index)) for claim, _ in told]
