"""The one look of a progress bar: what, how far, time passed, time left, a note."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def bars(console: Console | None = None) -> Progress:
    """Tasks take `description`, `total` and a field `note`, which may be empty."""
    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        TextColumn("[cyan]{task.fields[note]}"),
        console=console,
        refresh_per_second=2,
    )
