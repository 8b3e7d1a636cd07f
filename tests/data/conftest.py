"""Pictures, tars of them, and twelve captioned pictures in every layout that is read."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test alone keeps what is prepared."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GEAR_CACHE", str(folder))
    return folder


def noise(i: int, form: str = "png") -> bytes:
    pixels = np.random.default_rng(i).integers(0, 256, (20 + 3 * (i % 12), 44 - 2 * (i % 12), 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def tar(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as bundle:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            bundle.addfile(member, io.BytesIO(data))
    return path


class Captioned:
    """`N` pictures with one, two or three captions each. Every layout is written below a folder and returns what
    data.path would be."""

    N = 12

    def __init__(self) -> None:
        self.layouts: dict[str, Callable[[Path], Path]] = {
            "texts": self.texts,
            "table": self.table,
            "lines": self.lines,
            "coco": self.coco,
            "shards": self.shards,
        }

    def of(self, i: int) -> tuple[str, ...]:
        """The captions of picture i."""
        return tuple(f"picture {i}, said {way} — naïve 😀" for way in range(1 + i % 3))

    def number(self, name: str) -> int:
        """Of the picture with this name."""
        return int(Path(name).stem)

    def right(self, name: str, several: tuple[str, ...], layout: str) -> bool:
        """Whether the captions are those of the picture of this name; some layouts keep the first alone."""
        i = self.number(name)
        one = (layout == "lines" and i % 2 == 0) or (layout == "shards" and i >= 6)
        return several == (self.of(i)[:1] if one else self.of(i))

    def pictures(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(self.N):
            (folder / f"{i:02d}.png").write_bytes(noise(i))

    def texts(self, root: Path) -> Path:
        self.pictures(root / "set")
        for i in range(self.N):
            (root / "set" / f"{i:02d}.txt").write_text("\n\n".join(self.of(i)) + "\n", "utf-8")
        return root / "set"

    def table(self, root: Path) -> Path:
        self.pictures(root / "set" / "images")
        rows = [(f"images/{i:02d}.png", text) for i in range(self.N) for text in self.of(i)]
        text = "id,image,caption\n" + "".join(f'7,{path},"{text}"\n' for path, text in rows)
        (root / "set" / "list.csv").write_text(text, "utf-8-sig")
        return root / "set" / "list.csv"

    def lines(self, root: Path) -> Path:
        self.pictures(root / "set")
        texts = [list(self.of(i)) if i % 2 else self.of(i)[0] for i in range(self.N)]
        rows = [{"file_name": f"{i:02d}.png", "text": text} for i, text in enumerate(texts)]
        (root / "set" / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
        return root / "set" / "list.jsonl"

    def coco(self, root: Path) -> Path:
        self.pictures(root / "set" / "train2017")
        images = [{"id": 100 + i, "file_name": f"{i:02d}.png"} for i in range(self.N)]
        annotations = [{"image_id": 100 + i, "caption": text} for i in range(self.N) for text in self.of(i)]
        path = root / "set" / "annotations" / "captions_train2017.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
        return path

    def shards(self, root: Path) -> Path:
        """As GPIC has them and, in the second tar, as BLIP3o."""
        for name, some in (("a", range(6)), ("b", range(6, self.N))):
            members = []
            for i in some:
                said = self.of(i)
                beside = {"caption": said[0], "caption_type": "short"} if i % 3 == 0 else {"captions": said}
                suffix, text = ("json", json.dumps(beside)) if name == "a" else ("txt", said[0])
                both = [(f"{i:02d}.png", noise(i)), (f"{i:02d}.{suffix}", text.encode())]
                members += both if i % 2 else both[::-1]
            tar(root / "set" / f"{name}.tar", members)
        return root / "set"


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """An image file of noise of its own, of unequal sides: picture(i, form="png")."""
    return noise


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """Writes a tar: write(path, [(name, contents), ...], form=tarfile.PAX_FORMAT)."""
    return tar


@pytest.fixture(scope="session")
def captioned() -> Captioned:
    return Captioned()
