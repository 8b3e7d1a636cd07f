"""A table as Markdown, padded so that it reads in a terminal, too."""

from collections.abc import Sequence

from gear.figures.paper.metrics import ARROWS
from gear.figures.tables.table import NOT_RUN, Cell, Line, Table

MARKS = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}


def markdown(table: Table, lines: Sequence[Line], remarks: Sequence[str] = ()) -> str:
    """Title, table, the paper's notes, remarks. Headings over several columns stand in a first row of their own."""
    names = ["", *(heading(column["name"], column.get("better", 0)) for column in table.columns)]
    groups = ["", *(column.get("group", "") for column in table.columns)]
    over = [group if group != before else "" for group, before in zip(groups, ["", *groups], strict=False)]
    heads = [over, [f"**{name}**" if name else "" for name in names]] if any(groups) else [names]
    cells = [*heads, *([escaped(origin(line)), *_texts(table, line)] for line in lines)]
    widths = [max(3, *(len(row[j]) for row in cells)) for j in range(len(names))]
    rule = [("-" * width if j <= table.labels else "-" * (width - 1) + ":") for j, width in enumerate(widths)]
    drawn = [cells[0], rule, *cells[1:]]
    text = ["| " + " | ".join(_padded(table, j, c, w) for j, (c, w) in enumerate(zip(row, widths, strict=True))) + " |"
            for row in drawn]  # fmt: skip
    notes = [f"- {escaped(note)}" for note in (*table.notes, *remarks)]
    return "\n".join([f"**Table {table.number}. {table.title}.**", "", *text, "", *notes])


def heading(name: str, better: int) -> str:
    return f"{name}{ARROWS[better]}"


def origin(line: Line) -> str:
    """What the first column says: the paper's lines are the plain ones."""
    return {NOT_RUN: "here"}.get(line.origin, line.origin)


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _texts(table: Table, line: Line) -> list[str]:
    if line.origin == NOT_RUN:
        labels = [escaped(cell.text) for cell in line.cells]
        return [*labels, *[""] * (table.labels - len(labels)), NOT_RUN, *[""] * (len(table.columns) - table.labels - 1)]
    return [_text(cell) for cell in line.cells]


def _text(cell: Cell) -> str:
    return MARKS[cell.mark].format(escaped(cell.text))


def _padded(table: Table, column: int, text: str, width: int) -> str:
    return text.ljust(width) if column <= table.labels else text.rjust(width)
