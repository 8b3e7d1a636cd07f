"""The members of one plain tar, found by reading its headers and seeking over the rest."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gear.data.images import DataError

TAIL = 1 << 20  # bytes of zeros that may follow the last member; common are 10,240
BLOCK = tarfile.BLOCKSIZE
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # how gzip, bzip2, xz and zstd begin


class Headers:
    """Iterates the members of the tar `file` that are whole, at most once; their names begin with no "./".

    Nothing is extracted, so that it does not matter where names or links would lead. Where a tar ends too early, the
    iteration ends, and `cut` and `lost` say so. Raises `DataError` for a file that is no plain tar, and OSError.
    """

    cut: str  # where the tar ends too early, such as "within 0001.jpg"; "" if it is whole
    lost: str | None  # the member that this costs; "" if its name is not known, None if it costs none

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.file, self.cut, self.lost = file, "", None
        self.size = os.fstat(file.fileno()).st_size
        try:
            self.tar = tarfile.TarFile(fileobj=file, mode="r", encoding="utf-8", errors="surrogateescape")
        except OSError:
            raise
        except Exception as error:  # damaged headers are met with nearly any exception
            file.seek(0)
            if file.read(BLOCK).startswith(COMPRESSED):
                raise DataError(compressed(path)) from error
            raise DataError(
                f"{path} must be a tar of images and is no tar ({error}): remove it, or copy it again."
            ) from error

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        reached = -1
        while (member := self._next()) is not None:
            if self.tar.offset <= reached:  # a damaged size leads back
                self.cut, self.lost = f"within the header at byte {member.offset}", ""
                return
            if member.isreg() and member.offset_data + member.size > self.size:
                self.cut, self.lost = f"within {member.name}", member.name
                return
            reached = self.tar.offset
            yield member
        self._end()

    def _next(self) -> tarfile.TarInfo | None:
        """None at the end, and where a header is cut or damaged."""
        try:
            member = self.tar.next()
        except OSError:
            raise
        except Exception:
            return None
        # A million of them would fill the memory.
        self.tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
        if member is not None:
            member.name = member.name.removeprefix("./")
        return member

    def _end(self) -> None:
        at = min(self.tar.offset, self.size)
        self.file.seek(at)
        block = self.file.read(BLOCK)
        if any(block):
            self.cut, self.lost = f"within the header at byte {at}", ""
        elif len(block) < BLOCK:
            self.cut = "without an end mark"
        elif self.size - at > TAIL:  # a hole in an unfinished copy, or another tar
            self.cut, self.lost = f"in zeros from byte {at} on", ""


def compressed(path: Path) -> str:
    """What to say of a tar that is."""
    return (
        f"{path} is compressed, and only from a plain tar can an image be read by itself: unpack it, or make it a "
        "plain tar (gunzip, unzstd, ...)."
    )
