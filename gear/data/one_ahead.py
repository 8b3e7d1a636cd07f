"""What the next step needs, got ready by a thread while this step computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class OneAhead(Generic[T]):
    """`ahead(step)` is `make(step)`, a function of the step alone; that of the next step is begun at once.

    For what leaves Python free, as copies and reads do. Any other step than the next one starts there anew; an error
    comes up in the step that asks for what failed.
    """

    def __init__(self, make: Callable[[int], T]):
        self.make = make
        self._thread = ThreadPoolExecutor(1, "one ahead")
        self._coming: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        if self._coming is None or self._coming[0] != step:
            if self._coming is not None:
                self._coming[1].cancel()
            self._coming = step, self._thread.submit(self.make, step)
        now = self._coming[1]
        self._coming = step + 1, self._thread.submit(self.make, step + 1)
        return now.result()
