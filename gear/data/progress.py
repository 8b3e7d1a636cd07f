"""A progress bar that appears only when something takes a while."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 2.0  # seconds before anything is shown
PERIOD = 60.0  # seconds between lines where stderr is a file


@contextmanager
def counting(what: str, total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """Yields the function to call after each of `total` items.

    After two seconds a bar on stderr shows the time left; where stderr is a file, a line a minute does.
    """
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(what, total=total)
    begun = said = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, said
        done += 1
        bar.advance(task)
        now = time.monotonic()
        if not shown or now - begun < PATIENCE:
            return
        if console.is_terminal:
            bar.start()
        elif now - said > PERIOD:
            said = now
            minutes = (now - begun) / done * (total - done) / 60
            console.print(f"{what}: {done} of {total}, {minutes:.0f} min left", highlight=False, soft_wrap=True)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
