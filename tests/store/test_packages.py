import hashlib
import io
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from gear.store import packages
from gear.store.packages import FetchError, Package, check, download, member, members

DATA = b"archive"
PIP = Package("pip", "a-name", "1.0", "a_name-1.0.tar.gz", hashlib.sha256(DATA).hexdigest(), 1.0, "a/b.bin")
NPM = replace(PIP, client="npm", name="@x/a", archive="x-a-1.0.tgz")


@pytest.fixture
def answer(monkeypatch):
    """Sets what the client does: files it leaves, its exit status, its stderr. Returns the commands it was given."""
    commands: list[list[str]] = []

    def set_to(files: dict[str, bytes] | None = None, code: int = 0, stderr: str = "") -> list[list[str]]:
        def run(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            for name, data in (files or {}).items():
                (cwd / name).write_bytes(data)
            return subprocess.CompletedProcess(command, code, "", stderr)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
        return commands

    return set_to


def test_pip_is_given_the_hash(tmp_path, answer):
    commands = answer({PIP.archive: DATA})
    assert download(PIP, tmp_path) == tmp_path / PIP.archive
    assert commands[0][1:5] == ["-m", "pip", "download", "--no-deps"]
    assert "--require-hashes" in commands[0]
    assert (tmp_path / packages.REQUIREMENT).read_text() == f"a-name==1.0 --hash=sha256:{PIP.sha256}\n"


def test_npm_runs_no_scripts(tmp_path, answer):
    commands = answer({NPM.archive: DATA})
    assert download(NPM, tmp_path).read_bytes() == DATA
    assert commands[0][:2] == ["npm", "pack"]
    assert "--ignore-scripts" in commands[0]
    assert commands[0][-1] == "@x/a@1.0"


@pytest.mark.parametrize("package", [PIP, NPM], ids=["pip", "npm"])
def test_another_sha256_than_the_pinned_one(tmp_path, answer, package):
    answer({package.archive: b"tampered"})
    came = hashlib.sha256(b"tampered").hexdigest()
    with pytest.raises(FetchError, match=f"must be {package.sha256} and is {came}. It was not opened"):
        download(package, tmp_path)
    with pytest.raises(FetchError, match=came):
        check(package, tmp_path / package.archive)


def test_pips_own_refusal_is_told_in_the_same_words(tmp_path, answer):
    answer(
        code=1, stderr=f"ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n    Expected sha256 x\n      Got   {'b' * 64}\n"
    )
    with pytest.raises(FetchError, match=f"must be {PIP.sha256} and is {'b' * 64}"):
        download(PIP, tmp_path)


@pytest.mark.parametrize(
    ("package", "stderr", "reason"),
    [
        (
            PIP,
            "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found\n",
            "No matching",
        ),
        (PIP, "ERROR: Exception:\nTraceback\nOSError: no space\n", "OSError: no space"),
        (
            NPM,
            "npm error code E1\nnpm error syscall connect\nnpm error request failed, no route\nnpm error }\n",
            "request failed",
        ),
        (
            NPM,
            "npm error code ETARGET\nnpm error notarget No matching version\nnpm error notarget In most\n",
            "No matching",
        ),
        (NPM, "", "exit status 1"),
    ],
)
def test_no_network(tmp_path, answer, package, stderr, reason):
    answer(code=1, stderr=stderr)
    with pytest.raises(FetchError) as caught:
        download(package, tmp_path)
    assert f"could not download {package.name}: {reason}" in str(caught.value)
    assert f"`{package.command}`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_client(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    with pytest.raises(FetchError, match=r"npm is not installed\. Install it, or get x-a-1\.0\.tgz on another machine"):
        download(NPM, tmp_path)
    with pytest.raises(FetchError, match=r"has no pip\. Run `.* -m ensurepip`, or get"):
        download(PIP, tmp_path)


def test_a_client_that_leaves_another_file(tmp_path, answer):
    answer({"other.whl": DATA})
    with pytest.raises(FetchError, match=r"was to download a_name-1\.0\.tar\.gz, and downloaded other\.whl"):
        download(PIP, tmp_path)


def tar(path: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as bundle:
        for info in infos:
            bundle.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def info(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = size, kind, link
    return made


def test_members_of_both_kinds_of_archive(tmp_path):
    tar(tmp_path / "a.tgz", info("a/one"), info("a/two"), info("a/three"))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as bundle:
        for name in ("a/one", "a/two"):
            bundle.writestr(name, "xxx")
    for archive in ("a.tgz", "a.whl"):
        assert members(tmp_path / archive, {"a/one", "a/two", "absent"}) == {"a/one": b"xxx", "a/two": b"xxx"}
        assert member(tmp_path / archive, "a/two") == b"xxx"
        with pytest.raises(FetchError, match="has no file absent: it is another archive"):
            member(tmp_path / archive, "absent")


def test_an_archive_writes_nothing(tmp_path):
    """Paths that lead out, links and devices: only what is asked for by its whole name is read, and into memory."""
    out = tmp_path / "out"
    archive = tar(
        tmp_path / "a.tgz",
        info("../../evil"),
        info("/tmp/evil"),
        info("wanted", 0, tarfile.SYMTYPE, "/etc/passwd"),
        info("hard", 0, tarfile.LNKTYPE, "../../evil"),
    )
    assert members(archive, {"wanted", "hard"}) == {}
    assert not out.exists()
    assert list(tmp_path.iterdir()) == [archive]


def test_a_file_that_unpacks_to_too_much(tmp_path):
    archive = tar(tmp_path / "a.tgz", info("a", 1000))
    with pytest.raises(FetchError, match="larger than 100 bytes"):
        members(archive, {"a"}, limit=100)


@pytest.mark.parametrize("cut", [0, 1, 20, 100])
def test_no_archive(tmp_path, cut):
    whole = tar(tmp_path / "a.tgz", info("a", 5000), info("b", 5000))
    whole.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(FetchError, match="is not an archive that can be read"):
        member(whole, "b")
