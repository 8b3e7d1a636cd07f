"""A file of judgements: what is in it after a kill, after a change of the images, of the settings, on a
full disk."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from gear.evaluate.judged import Judged
from gear.store.whole import WriteError


def image(folder: Path, name: str, data: bytes = b"png") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_what_was_put_is_there_again(tmp_path: Path) -> None:
    a, b = image(tmp_path, "a.png"), image(tmp_path, "b.png")
    Judged(tmp_path / "j.jsonl", {"seed": 0}).put(a, {"correct": True})
    again = Judged(tmp_path / "j.jsonl", {"seed": 0})
    assert again.get(a) == {"correct": True}
    assert again.get(b) is None


def test_a_line_that_was_cut_off_is_forgotten(tmp_path: Path) -> None:
    a, b = image(tmp_path, "a.png"), image(tmp_path, "b.png")
    file = tmp_path / "j.jsonl"
    judged = Judged(file, {})
    judged.put(a, [1])
    judged.put(b, [2])
    file.write_bytes(file.read_bytes()[:-5])
    again = Judged(file, {})
    assert (again.get(a), again.get(b)) == ([1], None)
    again.put(b, [3])
    assert Judged(file, {}).get(b) == [3]


def test_other_images_and_other_settings_are_judged_anew(tmp_path: Path) -> None:
    a = image(tmp_path, "a.png")
    Judged(tmp_path / "j.jsonl", {"threshold": 0.3}).put(a, 1)
    assert Judged(tmp_path / "j.jsonl", {"threshold": 0.5}).get(a) is None
    Judged(tmp_path / "j.jsonl", {"threshold": 0.3}).put(a, 1)
    os.utime(a, ns=(1, 1))
    assert Judged(tmp_path / "j.jsonl", {"threshold": 0.3}).get(a) is None


def test_judgements_of_other_settings_are_there_when_these_are_again(tmp_path: Path) -> None:
    """Also after a start that made none, and after a kill between two steps of the change."""
    a, b, file = image(tmp_path, "a.png"), image(tmp_path, "b.png"), tmp_path / "j.jsonl"
    for judge, found in (("one", 1), ("other", 2)):
        Judged(file, {"judge": judge}).put(a, found)
    Judged(file, {"judge": "third"})
    for _ in range(2):
        assert [Judged(file, {"judge": judge}).get(a) for judge in ("one", "other", "third")] == [1, 2, None]
    Judged(file, {"judge": "one"}).put(b, 3)
    Judged(file, {"judge": "third"})
    file.unlink()
    again = Judged(file, {"judge": "one"})
    assert (again.get(a), again.get(b)) == (1, 3)


def test_a_start_that_cannot_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, file = image(tmp_path, "a.png"), tmp_path / "j.jsonl"
    Judged(file, {}).put(a, 1)
    before = file.read_bytes()

    def full(self: Path, *_: Any, **__: Any) -> int:
        self.write_bytes(b"{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(WriteError, match=r"j\.jsonl could not be written \(No space left on device\)"):
            Judged(file, {})
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".png"] == ["j.jsonl"]
    assert file.read_bytes() == before
    assert Judged(file, {}).get(a) == 1
