"""Signals that ask a run to stop: Ctrl-C, and SIGTERM or SIGUSR1 before a machine is taken away (Slurm, spot)."""

import signal
import types
from collections.abc import Callable

from gear import ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """Training stopped early, with its state saved. code: the exit status of the program, which is 0 where it was asked
    for by SIGTERM or SIGUSR1: the machine is wanted, and nothing went wrong."""

    def __init__(self, message: str, code: int = 130):
        super().__init__(message)
        self.code = code


class Stop:
    """Within its block, the first signal is a request that the loop honours between two steps. A second Ctrl-C is
    immediate.

    asked: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._leaves = False

    @property
    def code(self) -> int:
        """Of the request, for `Interrupted`; 0 where another rank had it."""
        return 130 if self.asked == signal.SIGINT else 0

    def __enter__(self) -> "Stop":
        self.before = {s: signal.signal(s, self._ask) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def leaving(self, work: Callable[[], object], allowed: bool = True) -> None:
        """Does the work, which a request ends at once where that is allowed: for what takes minutes and can be done
        again."""
        try:
            try:
                self._leaves = allowed
                if not (self.asked and allowed):
                    work()
            finally:
                self._leaves = False
        except _Left:
            self._leaves = False

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT and ranks.size() == 1:
                raise KeyboardInterrupt
            return  # a launcher passes on what its processes had from the terminal or from Slurm, too
        self.asked = number
        if self._leaves:
            raise _Left


class _Left(BaseException):
    """Of no kind that code in the block might handle."""
