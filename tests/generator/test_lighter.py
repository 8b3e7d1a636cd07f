import copy

import pytest
import torch

from gear.config import Text
from gear.generator import generate
from gear.generator.layers import Head
from gear.generator.lighter import Int8Linear, PackedLinear, lighter, packed
from gear.prompts import Prompts

HALF = 2.0**-8  # the unit roundoff of bfloat16


def logits(generator, tokens, labels):
    """(N, b, K), through the cache."""
    past, found = generator.empty_past(len(labels)), []
    x = generator.cls_embedding(labels)
    for step in range(tokens.shape[1]):
        found.append(generator.decode(x, past))
        x = generator.tok_embeddings(tokens[:, step])[:, None]
    return torch.stack(found)


def as_stored(generator):
    """The float64 twin of a lighter one: its numbers, computed with exactly."""
    twin = copy.deepcopy(generator)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Int8Linear):
                linear = torch.nn.Linear(*reversed(child.steps.shape), bias=False)
                linear.weight.data = child.steps.double() * child.scale.double()[:, None]
                setattr(module, name, linear)
    return twin.double()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_logits_are_those_of_the_stored_numbers(tiny, precision):
    """Each of about 10 roundings of a block adds its half unit, in directions of their own."""
    generator, labels = lighter(tiny(), precision), torch.tensor([0, 3, 4])
    tokens = torch.randint(20, (3, 12), generator=torch.Generator().manual_seed(0))
    got, want = logits(generator, tokens, labels), logits(as_stored(generator), tokens, labels)
    assert got.dtype == torch.float32
    error = (got - want).norm() / want.norm()
    assert error < (2 * 10) ** 0.5 * HALF
    assert generator.empty_past(1)[0].keys.dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "limit"), [("bfloat16", HALF), ("int8", (1 + 2 * HALF) / 254)])
def test_numbers_are_rounded_once(tiny, precision, limit):
    """int8: by half a step, of which 127 are the largest weight of an output and whose length is rounded too."""
    generator = tiny()
    kept = as_stored(lighter(generator, precision))
    for (name, want), got in zip(generator.named_parameters(), kept.parameters(), strict=True):
        assert ((got - want).abs() <= limit * want.abs().amax(-1, keepdim=True)).all(), name
    assert torch.equal(kept.rotary.table, generator.rotary.table)


def test_the_generator_itself_stays_as_it_was(tiny):
    generator = tiny().train()
    before = {name: t.clone() for name, t in generator.state_dict().items()}
    light = lighter(generator, "int8")
    assert lighter(generator, "float32") is generator
    generate(generator, torch.tensor([0]), seed=0, batch=1)
    generate(light, torch.tensor([0]), seed=0, batch=1)
    assert generator.training
    assert all(torch.equal(t, before[name]) for name, t in generator.state_dict().items())
    assert not any(isinstance(module, PackedLinear | Int8Linear) for module in generator.modules())
    with torch.no_grad():
        generator.output.weight.zero_()
    assert generate(generator, torch.tensor([0]), seed=0).max() > 0  # uniform: nothing packed was kept


IN_BFLOAT16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 products"
)


@pytest.mark.parametrize("bfloat16", [False, pytest.param(True, marks=IN_BFLOAT16)])
@pytest.mark.parametrize("rows", [1, 3, 32, 70])
def test_packed_differs_by_rounding(tiny, bfloat16, rows):
    generator = lighter(tiny(width=64), "bfloat16") if bfloat16 else tiny(width=64)
    fast = packed(generator)
    assert isinstance(fast.output, PackedLinear)
    x = torch.randn(rows, 1, 64, dtype=generator.embedding.dtype)
    for name in ("wqkv", "wo"):
        linear = getattr(generator.layers[0].attention, name)
        got, want = getattr(fast.layers[0].attention, name)(x), x.double() @ linear.weight.double().T
        eps = HALF if bfloat16 else 64 * torch.finfo(torch.float32).eps  # of sums of 64 terms of size 1 / 8
        assert (got - want).abs().max() <= eps * want.abs().max()


def test_nothing_is_packed_in_float64_or_under_autocast(tiny):
    generator = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert packed(generator) is generator
    assert packed(generator.double()) is generator


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("options", [{}, {"cfg_scale": 2.0}, {"cfg_scale": 2.0, "cfg_interval": (2, 7)}], ids=str)
def test_a_lighter_one_draws_the_same_at_any_split(tiny, precision, options):
    generator, labels = lighter(tiny(), precision), torch.arange(10) % 5
    whole = generate(generator, labels, seed=3, batch=4, **options)
    parts = [generate(generator, labels[i : i + 1], seed=3, batch=4, image_ids=[i], **options) for i in range(10)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_text_generator_has_lighter_blocks(tiny):
    generator = lighter(tiny(text=Text("minilm", tokens=4), text_width=6), "int8")
    prompts = Prompts(torch.randn(1, 4, 6), torch.ones(1, 4, dtype=torch.bool))
    assert generate(generator, torch.tensor([0, 0]), seed=0, prompts=prompts, batch=2, cfg_scale=2.0).shape == (2, 12)


def test_int8_of_a_width_that_torch_cannot_load(tiny):
    """Its product for a CPU reads 16 numbers at once, beyond the end of a row of 40: such matrices stay bfloat16."""
    small, labels = lighter(tiny(width=40), "int8"), torch.tensor([0, 3, 4])
    named = dict(small.named_modules())
    kinds = [type(named[name]) for name in ("layers.0.attention.wqkv", "layers.0.feed_forward.w2", "output")]
    assert kinds == [torch.nn.Linear, Int8Linear, Head]
    tokens = torch.randint(20, (3, 12), generator=torch.Generator().manual_seed(0))
    got, want = logits(small, tokens, labels), logits(as_stored(small), tokens, labels)
    assert (got - want).norm() < (2 * 10) ** 0.5 * HALF * want.norm()


def test_int8_gives_no_loss(tiny):
    """And has no weight that could be taken for one."""
    q = torch.zeros(1, 12, dtype=torch.long)
    with pytest.raises(TypeError):
        lighter(tiny(width=64), "int8")(q[:, :-1], torch.tensor([0]), targets=q)
