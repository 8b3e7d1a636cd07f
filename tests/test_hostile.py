"""Files that somebody made to harm, given to every door: nothing of them is run, and each ends in one sentence at once.

Those with code would make the file `ran`; that they really would is shown once, by opening them without care.
"""

import io
import os
import pickle
import re
import signal
import struct
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import gear
from gear import config as cfg
from gear.cli import main
from gear.generator import Generator, released
from gear.sharing import CONFIG, MODEL, ModelError
from gear.store.foreign import UnreadableFile
from gear.store.torch_file import read
from gear.tokenizer.tokenizer import Tokenizer
from gear.train import state

SECONDS = 60  # in which a file must have been refused, the first import of everything included
GENERATOR = cfg.Generator(layers=2, heads=2, width=32, tap=1, class_rotary="zero")


class Runs:
    """Unpickled, it makes the file `ran` in the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, a deadline, and generators of two blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(released.HEADS, (2, 32), 2)

    def late(*_: object) -> None:
        raise AssertionError(f"not refused after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def generator(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        return dict(Generator(GENERATOR, codebook_size=20, classes=3, grid=(2, 2)).state_dict()) | changes


def rewritten(path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def with_pickle(path: Path, data: bytes) -> None:
    """A torch file whose pickle is this one."""
    torch.save({"a": torch.ones(1)}, path)
    rewritten(path, lambda name, old: data if name.endswith("data.pkl") else old)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def zipped(path: Path) -> None:
    torch.save({"model": generator() | {"x": Runs()}}, path)


def legacy(path: Path) -> None:
    torch.save({"model": generator() | {"x": Runs()}}, path, _use_new_zipfile_serialization=False)


def plain(protocol: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(pickle.dumps({"model": Runs()}, protocol))

    return make


def in_args(path: Path) -> None:
    torch.save({"model": generator(), "args": Namespace(lr=1e-4, hook=Runs())}, path)


def in_an_optimizer(path: Path) -> None:
    torch.save({"model": generator(), "optimizer": {"state": {0: {"exp_avg": Runs()}}, "param_groups": []}}, path)


def behind_a_namespace(path: Path) -> None:
    """A Namespace whose attribute __setstate__ is os.system, and a second BUILD that would call it."""
    state = b"}" + text("__setstate__") + b"cposix\nsystem\nsb"
    with_pickle(path, b"\x80\x02}" + text("args") + b"cargparse\nNamespace\n)\x81" + state + text("touch ran") + b"bs.")


def by_a_method_of_a_namespace(path: Path) -> None:
    """Only names that are allowed: `__setstate__` is Namespace itself, and `__class__` another class."""
    state = b"}" + text("__setstate__") + b"cargparse\nNamespace\ns"
    swap = b"N}" + text("__class__") + b"ctorch\nFloatStorage\ns\x86"
    with_pickle(
        path, b"\x80\x02}" + text("args") + b"cargparse\nNamespace\n)\x81" + state + b"b" + swap + b"b" + b"}bs."
    )


CODE = {
    "zip": (zipped, "posix.system"),
    "legacy": (legacy, "posix.system"),
    **{f"pickle {n}": (plain(n), "posix.system") for n in (2, 3, 4, 5)},
    "args": (in_args, "posix.system"),
    "optimizer": (in_an_optimizer, "posix.system"),
    "namespace": (behind_a_namespace, "posix.system"),
}


def pickle_0(path: Path) -> None:
    path.write_bytes(pickle.dumps(Runs(), 0))


def long_header(length: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(
            struct.pack("<Q", length) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + bytes(4)
        )

    return make


def bomb(path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1 << 25)}}, path)  # 128 MiB, in 130 kB
    rewritten(path, lambda _, data: data, zipfile.ZIP_DEFLATED)


def lzma(path: Path) -> None:
    torch.save({"model": generator()}, path)
    rewritten(path, lambda _, data: data, zipfile.ZIP_LZMA)


def tar(path: Path) -> None:
    """As torch saved before 0.1.10."""
    with tarfile.open(path, "w") as archive:
        for name, data in (("sys_info", {}), ("pickle", Runs()), ("tensors", 0), ("storages", 0)):
            member, content = tarfile.TarInfo(name), pickle.dumps(data, 2)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def truncated(path: Path) -> None:
    torch.save({"model": generator()}, path)
    path.write_bytes(path.read_bytes()[:-1000])


def folder(path: Path) -> None:
    path.mkdir()


def repeated(path: Path) -> None:
    """One number that says it is a matrix of 10^15."""
    torch.save({"model": generator(**{"tok_embeddings.weight": torch.zeros(1).expand(10**9, 10**6)})}, path)


def laughing(path: Path) -> None:
    """Two dicts that each hold another twice, and so on: 2^60 in all."""
    level: dict[str, Any] = {"x": 1}
    for _ in range(60):
        level = {"a": level, "b": level}
    torch.save({"args": level, "model": {"w": torch.ones(1)}}, path)


def deep(path: Path) -> None:
    with_pickle(path, b"\x80\x02" + (b"}" + text("a")) * 100_000 + b"N" + b"s" * 100_000 + b".")


def itself(path: Path) -> None:
    with_pickle(path, b"\x80\x02}q\x00" + text("a") + b"h\x00s.")


def hidden_methods(path: Path) -> None:
    """A weight with an attribute `detach` that is a class."""
    odd = torch.nn.Parameter(torch.ones(32))
    for name in ("detach", "isfinite", "numel"):
        setattr(odd, name, torch.Size)
    torch.save({"model": generator(**{"norm.weight": odd, "output.weight": torch.zeros(1)})}, path)


def long_pickle(path: Path) -> None:
    with_pickle(path, b"\x80\x02}" + text("a") + b"]" + b"NNa0" * (1 << 23) + b"s.")


def terminal(path: Path) -> None:
    torch.save({"\x1b]0;owned\x07\n\nname": torch.zeros(1)}, path)


HARMFUL: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{name: (make, rf"asks for {re.escape(asked)} .*nothing of it was run") for name, (make, asked) in CODE.items()},
    "pickle 0": (pickle_0, "is text"),
    "allowed names": (by_a_method_of_a_namespace, "is not a whole torch file|holds args"),
    "header of 2^62": (long_header(1 << 62), "not a whole safetensors file"),
    "header of 90 MB": (long_header(90_000_000), "not a whole safetensors file"),
    "bomb": (bomb, r"unpack to 134\.\d MB, .*was not unpacked"),
    "lzma": (lzma, "compressed as torch cannot read it"),
    "tar": (tar, "is a tar archive"),
    "truncated": (truncated, "is cut short"),
    "folder": (folder, "is a folder|no checkpoint at"),
    "pipe": (os.mkfifo, "is a pipe|no checkpoint at"),
    "repeated": (repeated, r"tok_embeddings\.weight of model of .* stands for 4000"),
    "laughing": (laughing, "no known tokenizer|has a dict under|should be tensors"),
    "deep": (deep, "not a whole torch file|no weights of a tokenizer|has a dict under"),
    "itself": (itself, "no weights of a tokenizer|has a dict under"),
    "hidden methods": (hidden_methods, r"its output\.weight is|has a dict under"),
    "long pickle": (long_pickle, r"holds a pickle of 33\.\d MB"),
    "terminal": (terminal, r"\\x1b"),
}

TRAIN = "--data.resolution 32 --batch 3 --steps 1 --device cpu --out run"
DOORS: dict[str, str] = {
    "reconstruct": "reconstruct {file} image.png --resolution 32",
    "sample": "sample {file} --n 1",
    "sample's tokenizer": "sample whole.pt --n 1 --tokenizer {file}",
    "export": "export {file} exported",
    "tokenizer.init": "train demo --data.path {images} --tokenizer.init {file} " + TRAIN,
    "generator.init": "train demo --data.path {images} --generator.init {file} " + TRAIN,
    "target.weights": "train demo --data.path {images} --target {target} --target.weights {file} " + TRAIN,
}


def refused(door: str, capsys: pytest.CaptureFixture[str], **given: object) -> str:
    """The one line that it says, with the exit code 2; not a word of a traceback or a warning beside it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(DOORS[door].format(**given).split())
    said = capsys.readouterr()
    assert ended.value.code == 2, said
    assert said.err.startswith("gear: "), said.err
    assert said.err.count("\n") == 1, said.err
    assert said.err[:-1].isprintable()
    assert len(said.err) < 4100
    return said.err


@pytest.fixture
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long work, which a refusal must come before."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("images were prepared before the file was refused")

    monkeypatch.setattr("gear.data.load", load)


@pytest.mark.parametrize("name", CODE)
def test_they_would_run(place: Path, name: str) -> None:
    CODE[name][0](Path("file.pt"))
    with pytest.raises(UnreadableFile, match="nothing of it was run"):
        read(Path("file.pt"))
    assert not Path("ran").exists()
    if name.startswith("pickle"):
        pickle.loads(Path("file.pt").read_bytes())
    else:
        torch.load("file.pt", weights_only=False)
    assert Path("ran").exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", HARMFUL)
def test_every_door(
    place: Path, capsys: pytest.CaptureFixture[str], no_images: None, images_folder: Path, name: str, door: str
) -> None:
    make, said = HARMFUL[name]
    Image.new("RGB", (40, 40)).save("image.png")
    torch.save({"model": generator()}, "whole.pt")
    make(Path("file.pt"))
    error = refused(door, capsys, file="file.pt", images=images_folder, target="efficientnet_lite0")
    if not (door == "target.weights" and name in ("laughing", "deep", "itself", "terminal", "hidden methods")):
        assert re.search(said, error), error
    assert "file.pt" in error
    assert not Path("ran").exists()
    assert not Path("run").exists() or not list(Path("run").iterdir())
    assert not Path("exported").exists()


@pytest.mark.parametrize("name", HARMFUL)
def test_from_python(place: Path, name: str) -> None:
    make, _ = HARMFUL[name]
    make(Path("file.pt"))
    with pytest.raises(ValueError, match=r"file\.pt"):
        Tokenizer.from_released("file.pt")
    with pytest.raises(ValueError, match=r"file\.pt"):
        Generator.from_released("file.pt")
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", [name for name in HARMFUL if name not in ("header of 2^62", "folder")])
def test_a_saved_model_whose_weights_are_harmful(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Under the name of a safetensors file; a pickle beside it is not looked at."""
    Tokenizer(cfg.VQ(8, 4), cfg.VQGAN(8, (1,), encoder_blocks=1, decoder_blocks=1, latent=8, groups=4)).save_pretrained(
        "m"
    )
    zipped(Path("m/pytorch_model.bin"))
    gear.Tokenizer.from_pretrained("m")
    Path("m", MODEL).unlink()
    HARMFUL[name][0](Path("m", MODEL))
    with pytest.raises(ModelError, match=MODEL):
        gear.Tokenizer.from_pretrained("m")
    Image.new("RGB", (40, 40)).save("image.png")
    assert MODEL in refused("reconstruct", capsys, file="m") or name == "pipe"
    assert not Path("ran").exists()


# ------------------------------------------------------------------------------- whole files of something else


CAPTIONS = {"cls_embedding.cap_proj.fc1.weight": torch.zeros(2, 2), "cls_embedding.uncond_embedding": torch.zeros(1)}
ENCODER = {"encoder.conv_in.weight": torch.zeros(1), "quantize.embedding.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(
    ("door", "contents", "said"),
    [
        ("reconstruct", lambda: {"model": generator()}, "holds a generator and no tokenizer"),
        ("export", lambda: {"model": generator()}, "has no tokenizer, but a generator only"),
        ("sample's tokenizer", lambda: {"model": generator()}, "whole.pt|has no tokenizer"),
        ("tokenizer.init", lambda: {"model": generator()}, "holds no tokenizer: tokenizer.init must name"),
        ("generator.init", lambda: {"model": ENCODER}, "no known tokenizer.*Nor is it a generator.*an image tokenizer"),
        *[
            (door, lambda: {"model": generator() | CAPTIONS}, "holds LlamaGen's own text-to-image generator")
            for door in ("reconstruct", "sample", "export", "tokenizer.init", "generator.init")
        ],
        *[
            (door, lambda: {"model": generator(**{"norm.weight": torch.full((32,), torch.nan)})}, "NaN or infinity")
            for door in ("reconstruct", "sample", "export", "tokenizer.init", "generator.init")
        ],
        ("target.weights", lambda: generator(), "does not hold the weights of"),
    ],
)
def test_a_file_of_something_else(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    no_images: None,
    images_folder: Path,
    door: str,
    contents: Callable[[], dict[str, Any]],
    said: str,
) -> None:
    Image.new("RGB", (40, 40)).save("image.png")
    torch.save({"model": generator()}, "whole.pt")
    torch.save(contents(), "file.pt")
    error = refused(door, capsys, file="file.pt", images=images_folder, target="dinov3-s")
    assert re.search(said, error), error


TARGETS = ("dinov2-s", "dinov2-s-reg", "dinov3-s", "siglip2-b", "vjepa2.1-b", "clip-l")


@pytest.mark.parametrize("target", [*TARGETS, "efficientnet_lite0", "mobilenet_v2", "resnet50"])
def test_a_target_of_odd_names_and_shapes(
    monkeypatch: pytest.MonkeyPatch,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    no_images: None,
    images_folder: Path,
    target: str,
) -> None:
    odd = ["register_tokens", "pos_embed", "cls_token", "blocks.0.attn.qkv.bias", "storage_tokens", "img_mod_embed"]
    odd += [f"vision_model.encoder.layers.0.self_attn.{p}_proj.weight" for p in "qkv"]
    odd += ["vision_model.embeddings.class_embedding", "vision_model.embeddings.position_embedding.weight"]
    odd += [f"{module}.{p}" for module in ("patch_embed_img.proj", "norms_block.3") for p in ("weight", "bias")]
    odd += ["_blocks.0._other.weight", "_blocks.999999999999.x.y", "features.0.0.weight"]
    size = "--data.resolution 128" if target in ("siglip2-b", "clip-l") else ""  # their only grid
    monkeypatch.setitem(DOORS, "target.weights", f"{DOORS['target.weights']} {size}")
    for i, shape in enumerate(((), (0,), (1,), (2, 3), (1, 5, 7), (100_000, 1))):
        save_file({name: torch.zeros(shape) + i for name in odd}, f"{i}.safetensors")
        error = refused("target.weights", capsys, file=f"{i}.safetensors", images=images_folder, target=target)
        assert f"{i}.safetensors" in error
        assert "does not hold the weights of" in error
    mixed = {name: torch.zeros(*range(1, 2 + i % 4)) for i, name in enumerate(odd)}
    save_file(mixed, "mixed.safetensors")
    assert "mixed.safetensors" in refused(
        "target.weights", capsys, file="mixed.safetensors", images=images_folder, target=target
    )


# ------------------------------------------------------------------------------- gear's own formats


def small_folder(path: Path) -> dict[str, torch.Tensor]:
    net = Tokenizer(cfg.VQ(8, 4), cfg.VQGAN(8, (1,), encoder_blocks=1, decoder_blocks=1, latent=8, groups=4))
    net.save_pretrained(path)
    return {name: t.clone().contiguous() for name, t in net.state_dict().items()}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.full((8, 4), torch.nan), "has NaN or infinity"),
        (torch.zeros(8, 4, dtype=torch.int64), r"is of torch\.int64"),
        (torch.zeros(8, 4, dtype=torch.complex64), r"is of torch\.complex64"),
        (torch.zeros(8, 4).to(torch.float8_e4m3fn), None),
    ],
)
def test_odd_numbers_in_a_saved_model(place: Path, value: torch.Tensor, said: str | None) -> None:
    tensors = small_folder(Path("m"))
    save_file(tensors | {"quantize.embedding.weight": value}, Path("m", MODEL), {"format": "pt"})
    if said is None:
        assert gear.Tokenizer.from_pretrained("m").state_dict()["quantize.embedding.weight"].dtype == torch.float32
        return
    with pytest.raises(ModelError, match=said):
        gear.Tokenizer.from_pretrained("m")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"encoder_blocks": 1', '"encoder_blocks": 1000000000'),
        ('"encoder_blocks": 1', '"encoder_blocks": 10000000'),
        ('"channels": 8', '"channels": 800000000'),
        ('"channels": 8', '"channels": 80000'),
        ('"codebook_size": 8', '"codebook_size": 1000000000000'),
        ('"groups": 4', '"groups": 0'),
        ('"groups": 4', '"groups": 3'),
        ('"settings": {', '"settings": {"x": ' + "[" * 100_000 + "]" * 100_000 + ","),
        ('"quantizer": {', '"nothing": {'),
    ],
)
def test_odd_sizes_in_a_saved_model(place: Path, capsys: pytest.CaptureFixture[str], old: str, new: str) -> None:
    small_folder(Path("m"))
    config = Path("m", CONFIG)
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises((ValueError, RecursionError)):
        gear.Tokenizer.from_pretrained("m")
    Image.new("RGB", (40, 40)).save("image.png")
    refused("reconstruct", capsys, file="m")


@pytest.mark.parametrize("change", [{"layers": 10**6, "tap": 1}, {"width": 2**18}, {"layers": 10**12, "tap": 1}])
def test_a_run_whose_header_says_more_than_it_holds(
    place: Path, capsys: pytest.CaptureFixture[str], trained: Path, change: dict[str, int]
) -> None:
    kept = state.load(trained)
    config = replace(kept.config, generator=replace(kept.config.generator, **change))
    save_file(dict(kept.tensors), "file.safetensors", state.header(1, config, kept.classes))
    assert "file.safetensors describes a" in refused("sample", capsys, file="file.safetensors")
