"""Many short texts in little memory: a hundred million names as Python strings in a tuple would take 9 GB more."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
from jaxtyping import Int64, UInt8

Rows = Sequence[int] | Int64[np.ndarray, "n"]

AT_ONCE = 1 << 16  # texts moved in one go, so that the indices of their bytes stay small


class Strings(Sequence[str]):
    """N texts, as one run of UTF-8 bytes; bytes of file names that are not UTF-8 are kept (surrogateescape).

    Equal to any sequence of the same texts, as a tuple.
    """

    def __init__(self, data: UInt8[np.ndarray, "bytes"], ends: Int64[np.ndarray, "ends"]):
        self.data, self.ends = data, ends  # text i: data[ends[i] : ends[i + 1]]

    @staticmethod
    def of(texts: Iterable[str]) -> "Strings":
        data, ends = bytearray(), [0]
        for text in texts:
            data += text.encode("utf-8", "surrogateescape")
            ends.append(len(data))
        return Strings(np.frombuffer(bytes(data), np.uint8), np.array(ends, dtype=np.int64))

    @staticmethod
    def chained(parts: Sequence["Strings"]) -> "Strings":
        """All texts of `parts`, one after the other."""
        before = np.cumsum([0, *(len(part.data) for part in parts)])
        ends = [part.ends[1:] + start for part, start in zip(parts, before, strict=False)]
        data = np.concatenate([np.zeros(0, np.uint8), *(part.data for part in parts)])
        return Strings(data, np.concatenate([np.zeros(1, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Strings": ...
    def __getitem__(self, index: int | slice) -> "str | Strings":
        if isinstance(index, slice):
            return self.rows(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} texts; {index} is none of them.")
        i = index % len(self)
        return self.data[self.ends[i] : self.ends[i + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            ends: list[int] = (self.ends[start : start + AT_ONCE + 1] - self.ends[start]).tolist()
            block = self.data[self.ends[start] : self.ends[start] + ends[-1]].tobytes()
            for at, end in pairwise(ends):
                yield block[at:end].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Strings):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.data, other.data)
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(str.__eq__, self, other))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Strings({len(self)} in {len(self.data)} bytes)"

    def rows(self, index: Rows) -> "Strings":
        """The texts `index`, in that order."""
        chosen = np.asarray(index, dtype=np.int64)
        return self._moved(chosen, 0)

    def prefixed(self, prefix: str) -> "Strings":
        """Each text with `prefix` before it."""
        before = np.frombuffer(prefix.encode("utf-8", "surrogateescape"), np.uint8)
        out = self._moved(np.arange(len(self)), len(before))
        for start in range(0, len(self), AT_ONCE):
            heads = out.ends[start : start + AT_ONCE][: len(self) - start]
            out.data[heads[:, None] + np.arange(len(before))] = before
        return out

    def _moved(self, index: Int64[np.ndarray, "n"], room: int) -> "Strings":
        """The texts `index`, with `room` bytes before each."""
        sizes = self.ends[index + 1] - self.ends[index] + room
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        data = np.zeros(int(ends[-1]), np.uint8)
        for start in range(0, len(index), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            lengths = sizes[part] - room
            inside = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            to, source = ends[:-1][part] + room, self.ends[index[part]]
            data[np.repeat(to, lengths) + inside] = self.data[np.repeat(source, lengths) + inside]
        return Strings(data, ends)
