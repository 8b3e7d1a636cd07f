"""The table of encoders against the schema, the registry of weights, and the networks themselves."""

from pathlib import Path
from typing import get_args

import pytest
from torch import nn

from gear import config, weights
from gear.store.packages import Package
from gear.targets import ENCODERS, Target, check_grid, check_layer, files


def test_the_schema_the_table_and_the_registry_have_the_same_names() -> None:
    registered = {w.name for w in weights.WEIGHTS if w.needed_for == f"the alignment target {w.name}"}
    assert set(ENCODERS) == set(get_args(config.TargetName)) == registered


def test_the_convolutional_ones_are_standardised() -> None:
    packaged = {name for name in ENCODERS if isinstance(weights.find(name).source, Package)}
    assert {name for name, encoder in ENCODERS.items() if encoder.standardised} == packaged


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("dinov2-l-reg", 1024),
        ("dinov2-g", 1536),
        ("dinov3-l", 1024),
        ("siglip2-so400m-512", 1152),
        ("clip-l", 1024),
        ("vjepa2.1-l", 1024),
        ("efficientnet_lite0", 112),
        ("mobilenet_v2", 96),
        ("resnet50", 1024),
    ],
)
@files.without_weights()
def test_what_the_table_says_is_so(name: str, channels: int) -> None:
    """The name, the channels, the number of layers, the three questions; networks as large as the real ones."""
    encoder, path = ENCODERS[name], Path("model.safetensors")
    target = encoder.load(path)
    assert isinstance(target, Target)
    assert (target.name, target.channels) == (name, channels)
    assert callable(getattr(target, "preprocess", None))
    if isinstance(vit := getattr(target, "vit", None), nn.Module):
        assert len(list(vit.get_submodule("blocks").children())) == encoder.layers
        assert encoder.grid in (None, vit.get_submodule("patch_embed").grid_size[0])  # type: ignore[index]
    else:
        assert encoder.load(path, encoder.layers).name == name
        with pytest.raises(ValueError, match=f"the stages 1 to {encoder.layers}; layer is {encoder.layers + 1}"):
            encoder.load(path, encoder.layers + 1)


@pytest.mark.parametrize(
    ("name", "resolution", "grid"),
    [("dinov2-b", 384, 24), ("dinov3-l", 128, 8), ("siglip2-b", 256, 16), ("siglip2-b", 128, 16), ("resnet50", 8, 1)],
)
def test_a_grid_it_can_give(name: str, resolution: int, grid: int) -> None:
    check_grid(name, resolution, grid)


@pytest.mark.parametrize(
    ("name", "resolution", "grid", "instead"),
    [
        ("siglip2-b", 512, 32, "gives 16 x 16 tokens .* 512 px are 32 x 32 .*: use siglip2-b-512, or images of 256 px"),
        ("siglip2-l-512", 256, 16, "gives 32 x 32 tokens .* 256 px are 16 x 16 .*: use siglip2-l, or images of 512 px"),
        (
            "clip-l",
            384,
            24,
            "gives 16 x 16 .* are 24 x 24 tokens here: use one of any grid, as dinov2-b, or images of 256 px",
        ),
    ],
)
def test_a_grid_it_cannot_give(name: str, resolution: int, grid: int, instead: str) -> None:
    with pytest.raises(ValueError, match=f"The target {name} {instead}"):
        check_grid(name, resolution, grid)


def test_layers() -> None:
    for layer in (None, 1, 12):
        check_layer("dinov2-b", layer)
    for layer in (0, 13):
        with pytest.raises(ValueError, match=f"The target dinov2-b has the layers 1 to 12; it has no layer {layer}"):
            check_layer("dinov2-b", layer)
