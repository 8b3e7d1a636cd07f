"""The archive that a torch file is, looked at before torch opens it: whether it is whole, and no bomb."""

import zipfile
from pathlib import Path

from gear.store import foreign
from gear.store.cache import readable
from gear.store.foreign import UnreadableFile, first_line

RATIO = 20  # that a file may unpack to; weights shrink by a tenth or two, an optimizer that is all zeros more
SMALL = 1 << 26  # bytes that any file may unpack to


def checked(path: Path) -> bool:
    """Whether a torch file may be mapped into memory, which leaves what is not needed, an optimizer's, on the disk.

    torch checks no checksums, and maps a compressed member as if it were none: both would end in weights that are
    silently wrong. It unpacks without bound. Raises `UnreadableFile` if the file is cut short, damaged or a bomb.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise UnreadableFile(
            f"{path} is cut short: it begins as a torch file, and after {readable(size)} its end is missing. "
            "Download it again."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _refuse_bombs(path, size, members)
            damaged = archive.testzip()
    except UnreadableFile:
        raise
    except Exception as error:  # the decompressors have their own
        raise UnreadableFile(f"{path} is damaged ({first_line(error)}). Download it again.") from error
    if damaged is not None or len({member.filename for member in members}) < len(members):
        what = f"{damaged} in it has another checksum" if damaged else "a name comes twice in it"
        raise UnreadableFile(f"{path} is damaged: {what}. Download it again.")
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise UnreadableFile(f"{path} is a TorchScript program, not weights: ask its maker for a state dict.")
    return all(member.compress_type == zipfile.ZIP_STORED for member in members)


def _refuse_bombs(path: Path, size: int, members: list[zipfile.ZipInfo]) -> None:
    whole = sum(member.file_size for member in members)
    if whole > max(RATIO * size, SMALL) or sum(member.compress_size for member in members) > size:
        raise UnreadableFile(
            f"{path} says that its {readable(size)} unpack to {readable(whole)}, which weights do not, and was not "
            "unpacked: download it again, from somewhere else."
        )
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise UnreadableFile(f"{path} is compressed as torch cannot read it: unpack it and zip it without compression.")
    longest = max((member.file_size for member in members if member.filename.endswith(".pkl")), default=0)
    if longest > foreign.LARGEST:
        raise UnreadableFile(
            f"{path} holds a pickle of {readable(longest)}, in which no weights are: get another file."
        )


def asked(path: Path) -> list[str]:
    """What the pickle in the archive asks for besides what tensors are made of; nothing if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(name) as file:
                beginning = file.read(foreign.LARGEST)
    except Exception:  # as in `checked`
        return []
    return foreign.parsed(beginning).names
