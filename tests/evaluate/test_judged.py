"""A file of judgements: what is in it after a kill, after a change of the images, of the settings."""

import os
from pathlib import Path

from gear.evaluate.judged import Judged


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
