"""From what was kept to the numbers of Table 4 and Figures 4 and 5: similarity to the target, smoothness, usage."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gear.probe.features import Kept, Seen
from gear.probe.similarity import Neighbours, cka, cka_unbiased, cknna_of, neighbours
from gear.usage import Usage, usage


@dataclass(frozen=True)
class Similarity:
    """NaN where a measure is undefined, as for features that are all equal."""

    cka: float  # biased HSIC, as its authors have it
    cka_unbiased: float
    cknna: float  # of rows scaled to unit length, see `cknna`


@dataclass(frozen=True)
class Levels:
    """image: of positions averaged over each image. patch: of positions drawn from all images."""

    image: Similarity
    patch: Similarity


@dataclass(frozen=True)
class Spread:
    """Over images, those without a value left out; sd is the sample's. NaN if none has one, sd if only one has."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Smoothness:
    moran: Spread
    fft_high: Spread


@dataclass(frozen=True)
class Probed:
    """layers: of the generator, 0 first; none without one. flat: image maps that were the same everywhere, by name."""

    pre: Levels
    post: Levels
    layers: tuple[Levels, ...]
    target_smoothness: Smoothness
    pre_smoothness: Smoothness
    post_smoothness: Smoothness
    layers_smoothness: tuple[Smoothness, ...]
    natural: Usage
    soft: Usage
    flat: dict[str, int]


def measure(seen: Seen, k: int, advance: Callable[[], object] = lambda: None) -> Probed:
    """k: neighbours of CKNNA, below the number of images and of patches. advance: is called after each feature map."""
    target = seen.target
    near = _near(target.pooled, k), _near(target.patches, k)

    def similar(kept: Kept) -> Levels:
        image = compare(kept.pooled, target.pooled, k, near[0])
        levels = Levels(image, compare(kept.patches, target.patches, k, near[1]))
        advance()
        return levels

    maps = {"target": target, "pre": seen.pre, "post": seen.post}
    maps |= {f"layer {i}": layer for i, layer in enumerate(seen.layers)}
    flat = {name: int(kept.moran.isnan().sum()) for name, kept in maps.items()}
    return Probed(
        pre=similar(seen.pre),
        post=similar(seen.post),
        layers=tuple(map(similar, seen.layers)),
        target_smoothness=_smoothness(target),
        pre_smoothness=_smoothness(seen.pre),
        post_smoothness=_smoothness(seen.post),
        layers_smoothness=tuple(map(_smoothness, seen.layers)),
        natural=usage(seen.natural),
        soft=usage(seen.soft),
        flat={name: images for name, images in flat.items() if images},
    )


def blocks(probed: Probed, target: str, k: int, tau: float, codebook_size: int) -> dict[str, Any]:
    """The blocks "similarity", "spatial" and "codebook" of probe.json; a value that is undefined is None."""
    p = probed
    found = {
        "similarity": {
            "target": target,
            "k": k,
            "tokenizer": {"pre": asdict(p.pre), "post": asdict(p.post)},
            "generator": [{"layer": i} | asdict(levels) for i, levels in enumerate(p.layers)],
        },
        "spatial": {
            "target": asdict(p.target_smoothness),
            "tokenizer": {"pre": asdict(p.pre_smoothness), "post": asdict(p.post_smoothness)},
            "generator": [{"layer": i} | asdict(each) for i, each in enumerate(p.layers_smoothness)],
        },
        "codebook": {"K": codebook_size, "natural": p.natural.numbers(), "soft": {"tau": tau} | p.soft.numbers()},
    }
    return finite(found)


def compare(X: Float[Tensor, "n D"], Y: Float[Tensor, "n C"], k: int, near: Neighbours | None = None) -> Similarity:
    """near: of Y, where they are known."""
    return Similarity(cka(X, Y), cka_unbiased(X, Y), cknna_of(_near(X, k), near or _near(Y, k)))


def _near(X: Float[Tensor, "n D"], k: int) -> Neighbours:
    return neighbours(F.normalize(X, dim=1), k)


def _smoothness(kept: Kept) -> Smoothness:
    return Smoothness(_spread(kept.moran), _spread(kept.fft_high))


def _spread(values: Float[Tensor, "n"]) -> Spread:
    values = values[~values.isnan()].double()
    sd = float(values.std()) if len(values) > 1 else float("nan")
    return Spread(float(values.mean()), sd)


def finite(value: Any) -> Any:
    """Nested dictionaries and lists for JSON, in which a number that is none is None."""
    match value:
        case dict():
            return {name: finite(v) for name, v in value.items()}
        case list():
            return [finite(v) for v in value]
        case float():
            return value if math.isfinite(value) else None
        case _:
            return value
