"""Which tokens a run may read instead of running its tokenizer: those of the same images, crops and weights.

Images are known by their names and labels and, where they are prepared, by their pixels, of large sets by those of some
(`gear.provenance`). Files that are decoded at each visit are not opened for this: that one was edited is not noticed.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from gear import build, sources
from gear.config import Config, ConfigError, flips
from gear.data import Images
from gear.data.crop import Cropping
from gear.data.listing import Listing
from gear.data.mixture import Mixture
from gear.data.shards import Shards
from gear.provenance import names_digest, pixels_digest
from gear.store.packages import sha256
from gear.text import digests

OLDER: dict[str, Any] = {"mixture": [], "captioned": False}  # what folders are that do not say


def cropping(config: Config) -> Cropping:
    """The squares that images are seen in. Fixed random ones are the data set's and do not depend on the run's seed."""
    d = config.data
    return Cropping(d.resolution, d.crop, d.interpolation, d.views)


def about(config: Config, train: Images | Listing, null: Float[Tensor, "1 C"] | None = None) -> dict[str, Any]:
    """What the codes of `train` depend on, for their index. null: the unconditional input, if captions are stored."""
    targets = {t.name: asdict(t) for t in build.chosen_targets(config)}
    seen = {"targets": targets, "precision": config.precision if targets else None}  # tokens do not depend on it
    sets = {} if train.mixture is None else {"sizes": list(train.mixture.sizes)}
    read = {} if null is None else {"text": _text(config), "null": null.tolist()}
    return {**_settings(config), **_told(train), "classes": list(train.classes), **seen, **sets, **read}


def _told(train: Images | Listing) -> dict[str, str]:
    """By what images are known again."""
    pixels = {"pixels": pixels_digest(train)} if isinstance(train, Images) else {}
    return {"files": names_digest(train), **pixels}


def opened(config: Config) -> Shards:
    """The codes that `config` trains on. Raises `ConfigError` if they were made with anything else than it says."""
    assert config.data.codes is not None
    shards = Shards(Path(config.data.codes))
    _same(config, shards, _settings(config))
    if flips(config) and shards.shape.flips == 1:
        raise ConfigError(f"{config.data.codes} holds no flipped images: set data.flip to False, or encode again.")
    stored = shards.about["targets"]
    for target in build.chosen_targets(config):
        if target.name in stored and stored[target.name] != asdict(target):
            raise ConfigError(
                f"{config.data.codes} holds features of {stored[target.name]}, and this run has {asdict(target)}: "
                "encode again into another folder, or change targets."
            )
    if build.aligned(config) and features_stored(config, shards):
        made_in = shards.about.get("precision", "float32")  # which the first folders, all of float32, do not say
        if made_in != config.precision:
            raise ConfigError(
                f"{config.data.codes} holds features computed in {made_in}, and this run has precision = "
                f"{config.precision}: train with --precision {made_in}, or encode again into another folder."
            )
    if build.captioned(config) and "text" in shards.about:
        _same(config, shards, {"text": _text(config)})
    return shards


def _text(config: Config) -> dict[str, Any]:
    """What the states of captions depend on."""
    text = config.generator.text
    assert text is not None
    made_in = {"tokens": text.tokens, "padding": text.padding, "precision": config.precision}
    return {"sha256": digests(text), **made_in}


def features_stored(config: Config, shards: Shards) -> bool:
    """Whether neither an image nor a caption is needed any more."""
    seen = all(t.name in shards.shape.features for t in build.chosen_targets(config))
    return seen and (not build.captioned(config) or shards.shape.texts is not None)


def mixture(config: Config, shards: Shards) -> Mixture | None:
    """Of which sets the stored images are, each with the weight that `config` gives it now."""
    if not config.data.mixture:
        return None
    return Mixture(tuple(shards.about["sizes"]), (1.0, *(part.weight for part in config.data.mixture)))


def require_same_files(config: Config, shards: Shards, train: Images | Listing) -> None:
    """For a run that reads both: image i must be the one whose codes are row i. Pixels are compared where both are of
    prepared images, and the folder says them. Raises `ConfigError`."""
    told = _told(train).items()
    _same(config, shards, {name: value for name, value in told if name == "files" or name in shards.about})


def _settings(config: Config) -> dict[str, Any]:
    """Without the tokenizer's weights of a run that goes on, whose record has the digest of all that codes are of."""
    d, init = config.data, config.tokenizer.init
    sets = {"path": d.path, "mixture": [part.path for part in d.mixture], "captioned": build.captioned(config)}
    weights = {} if init is None else {"tokenizer": sha256(sources.file_of(init))}
    return {**sets, "holdout": d.holdout, **asdict(cropping(config)), **weights}


def _same(config: Config, shards: Shards, asked: dict[str, Any]) -> None:
    for name, value in asked.items():
        if (found := shards.about.get(name, OLDER.get(name))) != value:
            raise ConfigError(
                f"{config.data.codes} was encoded with {name} {found!r}, and this run has {value!r}: encode again into "
                "another folder, or change the run."
            )
