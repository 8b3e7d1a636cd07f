"""Networks of the transformers library: a folder of files, or a name on the Hugging Face hub. No remote code is run.

transformers is an optional dependency, so it is imported where it is needed and only there.
"""

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from gear.store import cache
from gear.store.foreign import first_line
from gear.store.hub import HubError, fetched
from gear.store.packages import sha256
from gear.store.strict import some

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")  # best first
WHOLE_FILES = (".safetensors", ".bin")
LOCAL = ("./", "../", "/", "~")  # with which a path begins, and no name on the hub
UNUSED = ("position_ids",)  # 0, 1, 2, ...: in old files, made by the class today


class PretrainedError(OSError):
    """A network of transformers that cannot be had or read here: why, and the ways to bring it."""


def transformers() -> Any:
    """The library. Raises `PretrainedError`, which says how to install it."""
    try:
        return import_module("transformers")
    except ImportError as error:
        raise PretrainedError(
            f"this needs the library transformers, which is not installed ({first_line(error)}): "
            "pip install 'gear[text]'"
        ) from error


def folder(
    model: str, files: Sequence[str] = (), optional: Sequence[str] = (), weights: Sequence[str] = WEIGHTS
) -> Path:
    """Where the files of `model` are: itself if it is a folder, the cache, or the hub's cache, downloaded if need be.

    model: a folder, or OWNER/NAME on the hub. files: needed beside the configuration and weights; optional: taken where
    they are. weights: of these, best first, one is needed; none: none is. Raises `PretrainedError`.
    """
    given = Path(os.path.expanduser(model))  # that of pathlib raises where there is no such user
    if model.startswith(LOCAL) and not given.is_dir():
        raise PretrainedError(
            f"there is no folder {model}: give one that holds the whole repository of a model of transformers, or a "
            "repository's name, OWNER/NAME."
        )
    for own in (given, kept(model)):
        if own.is_dir():
            needed = [name for name in (CONFIG, *files) if not (own / name).is_file()]
            if weights and not any((own / name).is_file() for name in weights):
                needed.append(" or ".join(weights))
            if needed:
                raise PretrainedError(
                    f"the folder {own} lacks {some(needed, ', ')}: give a folder that holds the whole repository of "
                    "a model of transformers."
                )
            return own
    try:
        place = fetched(model, CONFIG).parent
        for name in files:
            fetched(model, name)
        if weights:
            _weights(model, weights)
    except HubError as error:
        raise PretrainedError(
            f"the model {model} is not on this machine, and {error}. On a machine with a connection run "
            f"`hf download {model} --local-dir FOLDER`, bring FOLDER here and give its path instead of the name, "
            f"or put it at {kept(model)} (GEAR_CACHE moves that folder)."
        ) from error
    for name in optional:
        try:
            fetched(model, name)
        except HubError:
            continue
    return place


def kept(model: str) -> Path:
    """Where a model's folder may be put by hand."""
    return cache.directory() / "models" / model.replace("/", "--")


def load(kind: str, place: Path) -> Any:
    """The network of the class `transformers.<kind>` with exactly the weights of a folder, float32, frozen, on the CPU.

    Raises `PretrainedError` where the files are of another network or cannot be read.
    """
    net, said = opened(kind, place)
    wrong = [f"it lacks {name}" for name in sorted(said["missing_keys"])]
    wrong += [f"its {name} is of another shape" for name in sorted(key[0] for key in said["mismatched_keys"])]
    wrong += [f"{name} has no place here" for name in sorted(said["unexpected_keys"]) if not name.endswith(UNUSED)]
    if wrong:
        raise PretrainedError(f"{place} does not hold the weights of a {kind}: {some(wrong)}.")
    return net


def opened(kind: str, place: Path, **more: Any) -> tuple[Any, Mapping[str, Any]]:
    """The network of the class `transformers.<kind>` with the weights of a folder as far as they fit, float32, frozen,
    on the CPU; and what did not fit, as the library says it.

    more: options of `from_pretrained`. Raises `PretrainedError` where a file cannot be read.
    """
    library = transformers()
    quiet = library.utils.logging.get_verbosity(), library.utils.logging.is_progress_bar_enabled()
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    try:
        options = {"local_files_only": True, "output_loading_info": True, "dtype": "float32"}
        options["ignore_mismatched_sizes"] = True  # told, by name, where they matter
        net, said = getattr(library, kind).from_pretrained(str(place), **options, **more)
    except Exception as error:  # of a damaged file: safetensors', torch's, json's and the library's own
        raise PretrainedError(f"{place} cannot be read as a {kind}: {first_line(error)}") from error
    finally:
        library.utils.logging.set_verbosity(quiet[0])
        if quiet[1]:
            library.utils.logging.enable_progress_bar()
    return net.eval().requires_grad_(False), said


def digests(place: Path) -> dict[str, str]:
    """The sha256 of each file of weights in a folder."""
    names = sorted(p.name for p in place.iterdir() if p.suffix in WHOLE_FILES)
    if WEIGHTS[0] in names:  # what is read where both are
        names = [name for name in names if name == WEIGHTS[0]]
    return {name: sha256(place / name) for name in names}


def parts(index: Path) -> list[str]:
    """The names of the files that weights are in, by their index."""
    return sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})


def _weights(model: str, names: Sequence[str]) -> None:
    """Fetches the file of weights, or all of them where it is in parts."""
    why: HubError | None = None
    for name in names:
        try:
            file = fetched(model, name)
        except HubError as error:
            why = why or error
            continue
        if name.endswith(".index.json"):
            for part in parts(file):
                fetched(model, part)
        return
    assert why is not None
    raise why
