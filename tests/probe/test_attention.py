"""Attention on words: against loops over rows in float64, and against what the network itself computes with it."""

import math
from dataclasses import replace

import pytest
import torch

from gear import config as cfg
from gear.generator import Generator
from gear.generator.layers import Attention, Block
from gear.probe.attention import attention, on_text
from gear.prompts import Prompts

T, C, GRID, K = 5, 6, (3, 4), 11
TOKENS = GRID[0] * GRID[1]
SIZES = cfg.Generator(layers=3, heads=2, width=16, tap=2, projector=8)


@pytest.fixture
def generator() -> Generator:
    return made()


def made(**text: object) -> Generator:
    said = replace(cfg.Text(tokens=T, dual=1), **text)
    net = Generator(replace(SIZES, text=said), codebook_size=K, classes=0, grid=GRID, text_width=C)
    for p in net.parameters():
        torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=2 * p.shape[-1] ** -0.5)
    torch.nn.init.normal_(net.cls_embedding.null)
    return net.eval()


def captions(*lengths: int, padding: str = "left") -> Prompts:
    place = torch.arange(T)
    valid = torch.stack([place >= T - n if padding == "left" else place < n for n in lengths])
    return Prompts(torch.where(valid[..., None], torch.randn(len(lengths), T, C), 0), valid)


def layer(generator: Generator, block: int) -> Attention:
    """The block's attention."""
    found = generator.layers[block - 1]
    assert isinstance(found, Block)
    return found.attention


def inputs(generator: Generator, tokens: torch.Tensor, prompts: Prompts, block: int) -> torch.Tensor:
    """Of the block's attention."""
    held = []
    hook = layer(generator, block).register_forward_pre_hook(lambda _, given: held.append(given[0]))
    generator(tokens[:, :-1], prompts)
    hook.remove()
    return held[0]


@torch.no_grad()
def twin(generator: Generator, tokens: torch.Tensor, prompts: Prompts, block: int, i: int) -> torch.Tensor:
    """Of image i, row by row and head by head, from the weights by their names."""
    x = inputs(generator, tokens, prompts, block)[i].double()
    w = {name: p.double() for name, p in layer(generator, block).named_parameters()}
    width, heads, dual = x.shape[1], generator.heads, generator.config.dual_blocks
    c = width // heads

    def projected(row: int, which: int, head: int) -> torch.Tensor:
        own = "wqkv_text.weight" if row < T and block <= dual else "wqkv.weight"
        v = (w[own] @ x[row])[which * width + head * c : which * width + (head + 1) * c]
        if row < T:
            return v
        y, across = divmod(row - T, GRID[1])
        speeds = [10000.0 ** (-4 * j / c) for j in range(c // 4)]
        angles = torch.tensor([y * s for s in speeds] + [across * s for s in speeds], dtype=torch.float64)
        return torch.view_as_real(torch.view_as_complex(v.view(-1, 2)) * torch.exp(1j * angles)).flatten()

    found = torch.zeros(TOKENS, T, dtype=torch.float64)
    for token in range(TOKENS):
        row = T - 1 + token  # that predicts it
        seen = [j for j in range(row + 1) if j >= T or prompts.valid[i, j]]
        for head in range(heads):
            q = projected(row, 0, head)
            scores = torch.tensor([float(q @ projected(j, 1, head)) / math.sqrt(c) for j in seen])
            weights = scores.exp() / scores.exp().sum()
            for j, weight in zip(seen, weights, strict=True):
                if j < T:
                    found[token, j] += weight / heads
    return found


@pytest.mark.parametrize("block", [1, 2, 3])
def test_equals_the_slow_twin(generator: Generator, block: int) -> None:
    tokens, prompts = torch.randint(K, (3, TOKENS)), captions(5, 2, 1)
    found = on_text(generator, tokens, prompts, block)
    for i in range(3):
        torch.testing.assert_close(found[i].double(), twin(generator, tokens, prompts, block, i), atol=1e-4, rtol=1e-4)
    assert found[0].std(1).mean() > 1e-2  # not alike for all words


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("block", [1, 3])
def test_times_the_values_it_is_what_the_layer_gives(padding: str, block: int) -> None:
    generator = made(padding=padding)
    tokens, prompts = torch.randint(K, (2, TOKENS)), captions(5, 2, padding=padding)
    own, x = layer(generator, block), inputs(generator, tokens, prompts, block)
    rotary, sight = generator.rotary(0, x.shape[1]), generator.sight(prompts, x.shape[1])
    weights = attention(own, x, rotary, sight, prompts.valid)
    v = own.read(x, sight).unflatten(-1, (3, generator.heads, -1))[:, :, 2].transpose(1, 2)
    found = own.write((weights @ v).transpose(1, 2).flatten(2), sight)
    # Rows from where tokens are predicted on: what is before holds padding, whose order is its own.
    expected = own(x, rotary, None, sight)
    torch.testing.assert_close(found[:, T - 1 :], expected[:, T - 1 :], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_padding_has_no_weight_and_zero_rotation_tells_no_words_apart(generator: Generator) -> None:
    tokens, prompts = torch.randint(K, (2, TOKENS)), captions(2, 4)
    seen = on_text(generator, tokens, prompts, 2)
    assert (seen[0, :, : T - 2] == 0).all()
    assert (seen[0, :, T - 2 :] > 0).all()
    blind = on_text(made(rotary="zero"), tokens, prompts, 2)
    torch.testing.assert_close(blind[1, :, 1:], blind[1, :, 1:2].expand(-1, 4))


def test_the_mode_stays_and_nothing_is_hooked(generator: Generator) -> None:
    tokens, prompts = torch.randint(K, (1, TOKENS)), captions(3)
    first = on_text(generator, tokens, prompts, 2)
    generator.train()
    assert torch.equal(on_text(generator, tokens, prompts, 2), first)
    assert generator.training
    assert not layer(generator, 2)._forward_pre_hooks


def test_what_cannot_be_is_refused(generator: Generator) -> None:
    tokens, prompts = torch.randint(K, (1, TOKENS)), captions(3)
    with pytest.raises(ValueError, match="from 1 to 3; it is 0"):
        on_text(generator, tokens, prompts, 0)
    classes = Generator(SIZES, codebook_size=K, classes=2, grid=GRID)
    with pytest.raises(ValueError, match="draws classes"):
        on_text(classes, tokens, prompts, 1)
