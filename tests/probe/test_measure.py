"""From kept features to the blocks of probe.json."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from gear.probe.features import Kept, Seen
from gear.probe.measure import Probed, blocks, measure
from gear.probe.similarity import cka, cka_unbiased, cknna


def kept(channels: int, n: int = 25, M: int = 40) -> Kept:
    return Kept(torch.randn(n, channels) + 1, torch.randn(M, channels) - 1, torch.rand(n), torch.rand(n))


@pytest.fixture
def example() -> Seen:
    natural, soft = torch.tensor([3.0, 1, 0, 4]).double(), torch.rand(4).double()
    return Seen(kept(6), kept(4), kept(4), (kept(8), kept(8)), natural, soft)


def test_similarities_are_of_each_map_with_the_target(example):
    told: list[None] = []
    found = measure(example, 5, lambda: told.append(None))
    assert len(told) == 4
    for levels, k in zip(
        (found.pre, found.post, *found.layers), (example.pre, example.post, *example.layers), strict=True
    ):
        for level, X, Y in (
            (levels.image, k.pooled, example.target.pooled),
            (levels.patch, k.patches, example.target.patches),
        ):
            assert (level.cka, level.cka_unbiased) == (cka(X, Y), cka_unbiased(X, Y))
            assert level.cknna == pytest.approx(cknna(F.normalize(X, dim=1), F.normalize(Y, dim=1), 5))
    itself = measure(replace(example, pre=example.target), 5).pre
    values = [itself.image.cka, itself.image.cknna, itself.patch.cka_unbiased, itself.patch.cknna]
    assert values == pytest.approx([1, 1, 1, 1])


def test_spread_is_over_images_that_have_a_value(example):
    moran, high = torch.full((25,), torch.nan), torch.full((25,), torch.nan)
    moran[:4], high[7] = torch.tensor([0.1, 0.5, torch.nan, 0.3]), 0.5
    flat = replace(example.post, moran=moran, fft_high=high)
    found = measure(replace(example, post=flat), 5)
    assert found.post_smoothness.moran.mean == pytest.approx(0.3)
    assert found.post_smoothness.moran.sd == pytest.approx(0.2)
    assert found.post_smoothness.fft_high.mean == 0.5
    assert math.isnan(found.post_smoothness.fft_high.sd)
    assert found.flat == {"post": 22}
    assert measure(example, 5).flat == {}


def keys(value: object) -> object:
    match value:
        case dict():
            return {name: keys(v) for name, v in value.items()}
        case list():
            return [keys(v) for v in value]
    return type(value).__name__


def test_blocks_of_the_file(example):
    found = blocks(measure(example, 5), "dinov2-b", 5, 0.1, 4)
    level = {"cka": "float", "cka_unbiased": "float", "cknna": "float"}
    levels = {"image": level, "patch": level}
    spread = {"mean": "float", "sd": "float"}
    smooth = {"moran": spread, "fft_high": spread}
    usage = dict.fromkeys(("top1", "top10", "top100", "top1000", "entropy", "effective_size", "dead"), "float")
    assert keys(found) == {
        "similarity": {
            "target": "str",
            "k": "int",
            "tokenizer": {"pre": levels, "post": levels},
            "generator": [{"layer": "int"} | levels] * 2,
        },
        "spatial": {
            "target": smooth,
            "tokenizer": {"pre": smooth, "post": smooth},
            "generator": [{"layer": "int"} | smooth] * 2,
        },
        "codebook": {"K": "int", "natural": usage, "soft": {"tau": "float"} | usage},
    }
    assert [each["layer"] for each in found["similarity"]["generator"]] == [0, 1]
    assert found["codebook"]["natural"]["top1"] == 0.5
    assert found["codebook"]["natural"]["dead"] == 0.25


def test_what_is_undefined_is_null(example):
    same = replace(example.pre, pooled=torch.ones(25, 4), moran=torch.full((25,), torch.nan))
    probed: Probed = measure(replace(example, pre=same), 5)
    found = json.loads(json.dumps(blocks(probed, "dinov2-b", 5, 0.1, 4), allow_nan=False))
    assert found["similarity"]["tokenizer"]["pre"]["image"]["cka"] is None
    assert found["spatial"]["tokenizer"]["pre"]["moran"] == {"mean": None, "sd": None}
    assert found["similarity"]["tokenizer"]["pre"]["patch"]["cka"] is not None
