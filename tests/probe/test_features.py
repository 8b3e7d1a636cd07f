"""What is read of each network, which rows meet which patches, and that batches do not matter."""

from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from gear.probe.features import FeatureError, Seen, draw_positions, look, states
from gear.probe.spatial import high_frequency_share, morans_i
from gear.train.batches import to_float

GRID = (4, 4)
ALL = 10**6


def seen(tokenizer, generator, target, pixels: Tensor, batch: int = 30, **changes: Any) -> Seen:
    options = {"patches": ALL, "tau": 0.1, "seed": 0, "on": torch.device("cpu")} | changes
    return look(tokenizer, generator, target, iter(pixels.split(batch)), len(pixels), GRID, **options)


@torch.no_grad()
def test_states_are_those_of_a_forward_pass(generator):
    """By hooks on the blocks of `Generator.forward` itself, and its own tap."""
    generator.eval()
    q = torch.randint(16, (2, 16))
    hooked: list[Tensor] = []
    generator.layers[0].register_forward_pre_hook(lambda _, args: hooked.append(args[0]))
    for block in generator.layers:
        block.register_forward_hook(lambda _, __, out: hooked.append(out))
    forward = generator(q[:, :-1], torch.full((2,), generator.null_label))
    whole = [*hooked]
    ours = list(states(generator, q))
    assert len(ours) == 4
    for a, b in zip(ours, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    torch.testing.assert_close(ours[generator.tap], forward.tap, rtol=0, atol=0)
    torch.testing.assert_close(ours[0][:, 1:], generator.embedding[q[:, :-1]])


@torch.no_grad()
def test_row_k_predicts_patch_k(generator):
    """It has seen the tokens before k and no other: changing token 6 changes rows 7 and later, at every layer."""
    q = torch.randint(16, (1, 16))
    other = q.clone()
    other[0, 6] = (q[0, 6] + 1) % 16
    for a, b in zip(states(generator, q), states(generator, other), strict=True):
        changed = (a != b).any(2)[0]
        assert not changed[:7].any()
        assert changed[7]


def test_what_is_kept(tokenizer, generator, target, pixels):
    """Of every map, computed here on all images at once."""
    found = seen(tokenizer, generator, target, pixels, batch=7)
    with torch.no_grad():
        q = tokenizer.encode(to_float(pixels))
        z = tokenizer.quantized(to_float(pixels))[0].assignment.z
        maps = [target.features(pixels, GRID), z, tokenizer.quantize.codewords()[q], *states(generator, q)]
    assert len(found.layers) == 4
    for kept, f in zip((found.target, found.pre, found.post, *found.layers), maps, strict=True):
        torch.testing.assert_close(kept.pooled, f.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(kept.patches, f.flatten(0, 1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(kept.moran, morans_i(f, GRID), rtol=0, atol=1e-4, equal_nan=True)
        torch.testing.assert_close(kept.fft_high, high_frequency_share(f, GRID), rtol=0, atol=1e-4, equal_nan=True)
    assert found.natural.tolist() == torch.bincount(q.flatten(), minlength=16).tolist()
    assert float(found.soft.sum()) == pytest.approx(30 * 16)
    torch.testing.assert_close(z.norm(dim=2), torch.ones(30, 16))  # VQ: on the sphere, as the codewords


def test_same_patches_are_drawn_of_every_map(tokenizer, generator, target, pixels):
    whole = seen(tokenizer, generator, target, pixels)
    some = seen(tokenizer, generator, target, pixels, batch=4, patches=50, seed=3)
    drawn = draw_positions(30, 16, 50, 3)
    assert len(drawn.unique()) == 50
    for a, b in zip((whole.target, whole.post, *whole.layers), (some.target, some.post, *some.layers), strict=True):
        torch.testing.assert_close(b.patches, a.patches[drawn], rtol=1e-4, atol=1e-5)
    other = seen(tokenizer, generator, target, pixels, patches=50, seed=4)
    assert not torch.equal(other.target.patches, some.target.patches)


def test_a_state_that_has_seen_its_patch(tokenizer, generator_of, target, pixels):
    """align = "same": row i + 1 meets patch i, and the last patch nothing, as `States.projected` has it."""
    generator = generator_of("same").eval()
    found = seen(tokenizer, generator, target, pixels, batch=8)
    with torch.no_grad():
        q = tokenizer.encode(to_float(pixels))
        f, h = target.features(pixels, GRID)[:, :-1], list(states(generator, q))[generator.tap]
        projected = generator(q[:, :-1], torch.full((30,), generator.null_label), stop_at_tap=True).projected["squares"]
        g = generator.projectors["squares"](found.layers[generator.tap].patches)
    torch.testing.assert_close(found.target.patches, f.flatten(0, 1))
    torch.testing.assert_close(found.layers[generator.tap].patches, h[:, 1:].flatten(0, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g, projected.flatten(0, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.layers[2].moran, morans_i(h, GRID), rtol=0, atol=1e-4)


def test_without_a_generator(tokenizer, target, pixels):
    found = seen(tokenizer, None, target, pixels)
    assert found.layers == ()
    assert found.pre.patches.shape == (480, 4)


def test_it_reads_in_evaluation_mode(tokenizer, generator, target, pixels):
    """Dropout of 0.5 would show."""
    a, b = (seen(tokenizer.train(), generator.train(), target, pixels) for _ in range(2))
    for x, y in zip(a.layers, b.layers, strict=True):
        torch.testing.assert_close(x.pooled, y.pooled, rtol=0, atol=0)


def test_features_that_are_not_finite(tokenizer, generator, target, pixels):
    generator.layers[1].ffn_norm.weight.data[3] = torch.nan
    with pytest.raises(FeatureError, match="the features of the generator's layer 2 are NaN or infinite at image 0,"):
        seen(tokenizer, generator, target, pixels, batch=4)
    features = target.features
    target.features = lambda x, grid: features(x, grid).where((x != pixels[9]).any(3).any(2).any(1)[:, None, None], inf)
    with pytest.raises(FeatureError, match="the features of the target encoder are NaN or infinite at image 9,"):
        seen(tokenizer, None, target, pixels, batch=4)


def test_a_bar_can_follow(tokenizer, generator, target, pixels):
    told: list[int] = []
    seen(tokenizer, generator, target, pixels, batch=8, advance=told.append)
    assert told == [8, 8, 8, 6]
