"""Settings beside the paper's, and the two formats in which tables are printed."""

import re

import pytest

from gear.commands.table import studied
from gear.figures.tables import ours, settings
from gear.figures.tables.latex import latex
from gear.figures.tables.markdown import markdown
from gear.figures.tables.table import NOT_RUN, NUMBERS, Cell, Line, load, value


def lines_of(number: int) -> list[Line]:
    return ours.lines(load(number), [])[0]


def texts(line: Line) -> list[str]:
    return [cell.text for cell in line.cells]


# ------------------------------------------------------------------------------------------------------------ settings


def test_our_settings_are_the_papers() -> None:
    """Except where the project decided otherwise."""
    differ = {}
    for number in (15, 16, 17):
        lines = settings.lines(load(number), studied)
        for paper, here in zip(lines[::2], lines[1::2], strict=True):
            for a, b in zip(texts(paper)[1:], texts(here)[1:], strict=True):
                if sorted(a.split(", ")) != sorted(b.split(", ")):
                    differ[number, texts(paper)[0]] = (a, b)
    assert differ == {
        (15, "Tokenizer init."): ("✗", "✗, ✓"),
        (16, "torch.compile"): ("✓", "✗"),
        (17, "Training data"): ("GPIC (~100M)", "gpic/train"),
        (17, "Schedule"): ("1 epoch (~390k)", "390,625"),
    }


# ----------------------------------------------------------------------------------------------------------- rendering


@pytest.mark.parametrize("number", NUMBERS)
def test_both_formats_have_every_number(number: int) -> None:
    table = load(number)
    lines = settings.lines(table, studied) if table.whole.get("settings") else lines_of(number)
    drawn, printed = markdown(table, lines, ["a remark"]), latex(table, lines, ["a remark"])
    rows = [line for line in drawn.splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {len(table.columns) + 3}
    assert len({len(row) for row in rows}) == 1  # padded
    body = printed.partition(r"\midrule")[2]
    for line in lines:
        for text in texts(line):
            if value(text) is not None:
                assert text.split(" ")[0].rstrip("*") in body
    for row in printed.splitlines():
        if row.endswith(r"\\") and "multicolumn" not in row:
            assert len(re.findall(r"(?<!\\)&", row)) == len(table.columns), row
    assert printed.count("{") == printed.count("}")
    assert printed.isascii()
    assert printed.endswith("% a remark")
    assert "- a remark" in drawn


def test_marks_and_arrows_in_both_formats() -> None:
    drawn, printed = markdown(load(5), lines_of(5)), latex(load(5), lines_of(5))
    assert "**9.153**" in drawn
    assert "<u>10.630</u>" in drawn
    assert "gFID↓" in drawn
    assert r"\textbf{9.153}" in printed
    assert r"\underline{10.630}" in printed
    assert r"gFID$\downarrow$" in printed
    assert rf"\multicolumn{{8}}{{c}}{{\emph{{{NOT_RUN}}}}}" in printed
    assert r"**0.68\***" in markdown(load(1), lines_of(1))


def test_a_remark_of_several_lines_stays_a_comment() -> None:
    line = Line("a\nb", tuple(Cell(t) for t in ["x", *["1.000"] * 8]), "all")
    printed = latex(load(7), [line], ["one\n\\input{two}"])
    assert printed.endswith(r"% one \input{two}")
    assert "a b & x" in printed


def test_names_of_runs_are_escaped() -> None:
    line = Line("a_b|c & 50%", tuple(Cell(t) for t in ["x", *["1.000"] * 8]), "all")
    assert r"a\_b$|$c \& 50\% & x" in latex(load(7), [line])
    assert r"a_b\|c & 50%" in markdown(load(7), [line])
