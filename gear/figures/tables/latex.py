"""A table as LaTeX: booktabs, amssymb for the ticks, graphicx where it is wider than the page."""

from collections.abc import Sequence
from itertools import groupby

from gear.figures.tables.markdown import heading, origin
from gear.figures.tables.table import NOT_RUN, Line, Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--",
    "✓": r"$\checkmark$", "✗": r"$\times$", "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$",
    "β": r"$\beta$", "λ": r"$\lambda$", "τ": r"$\tau$", "\N{SCRIPT SMALL L}": r"$\ell$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": "$<$", ">": "$>$", "|": "$|$",
}  # fmt: skip
MARKS = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
WIDE = 8  # columns that a page takes at its own size


def latex(table: Table, lines: Sequence[Line], remarks: Sequence[str] = ()) -> str:
    """A whole table environment. Rules part the groups; the notes are in the caption, remarks in comments below."""
    labels, columns = table.labels, table.columns
    caption = " ".join(f"{part.rstrip('.')}." for part in (table.title, *table.notes))
    wide = len(columns) > WIDE
    text = [
        "% Needs booktabs, amssymb and graphicx.",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:paper-{table.number:02d}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{l{'l' * labels}{'r' * (len(columns) - labels)}}}",
        r"\toprule",
        *_headings(table),
        r"\midrule",
    ]
    for i, (_, members) in enumerate(groupby(lines, key=lambda line: line.group)):
        text += [r"\midrule"] if i else []
        text += [_row(table, line) for line in members]
    text += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else ""), r"\end{table}"]
    return "\n".join([*text, *(f"% {' '.join(remark.split())}" for remark in remarks)])


def escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))


def _headings(table: Table) -> list[str]:
    names = [escaped(heading(column["name"], column.get("better", 0))) for column in table.columns]
    over, rules, at = [""], [], 2
    for group, members in groupby(table.columns, key=lambda column: column.get("group", "")):
        n = len(list(members))
        over.append(rf"\multicolumn{{{n}}}{{c}}{{{escaped(group)}}}" if group else " & " * (n - 1))
        rules += [rf"\cmidrule(lr){{{at}-{at + n - 1}}}"] if group else []
        at += n
    first = [" & ".join(over) + r" \\", " ".join(rules)] if rules else []
    return [*first, " & ".join(["", *names]) + r" \\"]


def _row(table: Table, line: Line) -> str:
    cells = [escaped(origin(line)), *(MARKS[cell.mark].format(escaped(cell.text)) for cell in line.cells)]
    if line.origin == NOT_RUN:
        numbers = len(table.columns) - table.labels
        cells += [""] * (table.labels + 1 - len(cells)) + [rf"\multicolumn{{{numbers}}}{{c}}{{\emph{{{NOT_RUN}}}}}"]
    return " & ".join(cells) + r" \\"
