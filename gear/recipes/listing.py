"""What `gear recipes` prints: all recipes in groups, one to a table of the paper, in columns that fit 80 characters."""

from dataclasses import dataclass

from gear.recipes.registry import GROUP, GROUPS, NOTES, RECIPES, ROWS, WITHOUT, Generated, run_of

HEADER = ("recipe", "what", "steps", "gFID")
LEGEND = (
    "gFID is the paper's, without guidance where the table has both. = NAME: the same training run as NAME, perhaps "
    "sampled otherwise."
)


@dataclass(frozen=True)
class Entry:
    name: str
    what: str  # one sentence
    run: str  # the recipe that trains the same run; `name` itself if it is the first
    steps: int
    gfid: float | None  # the paper's, without guidance where the table has both

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """As text, for the columns of `HEADER`; gFID to two places."""
        what = self.what if self.run == self.name else f"{self.what} = {self.run}"
        return self.name, what, _rounded(self.steps), "" if self.gfid is None else f"{self.gfid:.2f}"


@dataclass(frozen=True)
class Group:
    title: str
    entries: tuple[Entry, ...]
    note: str = ""  # what it leaves out, and why


def groups(table: int | None = None) -> list[Group]:
    """All recipes, or those of one table of the paper. Raises ValueError for a table without any, and says why."""
    if table is not None and table not in GROUPS:
        tables = ", ".join(str(key) for key in sorted(key for key in GROUPS if isinstance(key, int)))
        why = WITHOUT.get(table, "the paper has none")
        raise ValueError(f"no recipe belongs to Table {table} ({why}); the tables that have recipes are {tables}.")
    return [
        Group(title, tuple(_entry(name) for name, key in GROUP.items() if key == group), NOTES.get(group, ""))
        for group, title in GROUPS.items()
        if table in (None, group)
    ]


def _entry(name: str) -> Entry:
    function, row = RECIPES[name], ROWS.get(name)
    scores = row.generated.values() if row else ()
    gfid = next((found.gfid for found in scores if isinstance(found, Generated)), None)
    what = (function.__doc__ or "").partition("\n")[0].removesuffix(".")
    return Entry(name, what, run_of(name), function().steps, gfid)


def _rounded(steps: int) -> str:
    for unit, sign in ((1_000_000, "M"), (1000, "k")):
        if steps >= unit:
            return f"{steps / unit:.3g}{sign}"
    return str(steps)
