import copy
import math

import pytest
import torch
import torch.nn.functional as F

from gear.config import SIZES
from gear.generator import Generator
from gear.noise import Dropout
from gear.update import frozen

KEYS = """cls_embedding.embedding_table.weight tok_embeddings.weight norm.weight output.weight
layers.0.attention.wqkv.weight layers.0.attention.wo.weight layers.0.attention_norm.weight layers.0.ffn_norm.weight
layers.0.feed_forward.w1.weight layers.0.feed_forward.w2.weight layers.0.feed_forward.w3.weight
projectors.a.0.weight projectors.a.0.bias projectors.a.2.weight projectors.a.2.bias projectors.a.4.weight
projectors.a.4.bias"""


@torch.no_grad()
def twin(generator: Generator, u: torch.Tensor, label: int, *, zero: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
    """One image, written out from the paper's and LlamaGen's description: loops over blocks, heads and rows, complex
    rotation, float64. Returns the output of every block and the logits."""
    p = {k: v.double() for k, v in generator.state_dict().items()}
    w, heads = generator.grid[1], generator.heads
    x = torch.cat([p["cls_embedding.embedding_table.weight"][label][None], u.double()])
    n, width = x.shape
    c = width // heads

    def norm(v, weight):
        return torch.stack([r / math.sqrt((r**2).mean() + 1e-5) for r in v]) * weight

    def turn(v, row):
        if row == 0:
            return v * 0 if zero else v
        y, x_ = divmod(row - 1, w)
        speeds = [10000.0 ** (-4 * i / c) for i in range(c // 4)]
        angles = torch.tensor([y * s for s in speeds] + [x_ * s for s in speeds], dtype=torch.float64)
        return torch.view_as_real(torch.view_as_complex(v.view(-1, 2)) * torch.exp(1j * angles)).flatten()

    blocks = []
    for i in range(len(generator.layers)):
        block = {k.removeprefix(f"layers.{i}."): v for k, v in p.items() if k.startswith(f"layers.{i}.")}
        v_in = norm(x, block["attention_norm.weight"])
        q, k, v = (v_in @ block["attention.wqkv.weight"].T).split(width, dim=1)
        mixed = torch.zeros_like(x)
        for head in range(heads):
            s = slice(head * c, (head + 1) * c)
            for row in range(n):
                scores = torch.stack([turn(q[row, s], row) @ turn(k[j, s], j) for j in range(row + 1)]) / math.sqrt(c)
                mixed[row, s] = (scores.exp() / scores.exp().sum()) @ v[: row + 1, s]
        x = x + mixed @ block["attention.wo.weight"].T
        v_in = norm(x, block["ffn_norm.weight"])
        gate = v_in @ block["feed_forward.w1.weight"].T
        up = v_in @ block["feed_forward.w3.weight"].T
        x = x + (gate * torch.sigmoid(gate) * up) @ block["feed_forward.w2.weight"].T
        blocks.append(x)
    return blocks, norm(x, p["norm.weight"]) @ p["output.weight"].T


@pytest.mark.parametrize("class_rotary", ["identity", "zero"])
def test_equals_the_slow_twin(tiny, class_rotary):
    generator = tiny(class_rotary=class_rotary, layers=3, tap=2).double()
    q, c = torch.randint(20, (2, 11)), torch.tensor([4, 1])
    states = generator(q, c)
    for i in range(2):
        blocks, logits = twin(generator, generator.embedding[q[i]], int(c[i]), zero=class_rotary == "zero")
        # 1e-5: the angles are float32 in the generator and float64 in the twin.
        torch.testing.assert_close(states.tap[i], blocks[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(states.logits[i], logits, atol=1e-5, rtol=1e-5)


def test_the_two_class_rotations_differ(tiny):
    q, c = torch.randint(20, (1, 11)), torch.tensor([0])
    a, b = (tiny(class_rotary=kind)(q, c).logits for kind in ("identity", "zero"))
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("k", [0, 5, 10])
def test_token_k_changes_only_rows_after_k(tiny, k):
    generator = tiny()
    q, c = torch.randint(20, (1, 11)), torch.tensor([2])
    other = q.clone()
    other[0, k] = (q[0, k] + 1) % 20
    a, b = generator(q, c), generator(other, c)
    for name in ("tap", "logits"):
        moved = (getattr(a, name) - getattr(b, name)).abs().amax(-1)[0]
        assert (moved[: k + 1] == 0).all()
        assert (moved[k + 1 :] > 0).all()


def test_every_row_sees_the_class(tiny):
    generator, q = tiny(), torch.randint(20, (1, 11))
    moved = generator(q, torch.tensor([0])).logits - generator(q, torch.tensor([1])).logits
    assert (moved.abs().amax(-1) > 0).all()


def test_tap_is_what_the_next_block_gets(tiny):
    for tap in (1, 2):
        generator, seen = tiny(tap=tap), []
        following = generator.layers[1] if tap == 1 else generator.norm
        following.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        states = generator(torch.randint(20, (2, 11)), torch.tensor([0, 1]))
        assert torch.equal(states.tap, seen[0])
        assert torch.equal(states.projected["a"], generator.projectors["a"](seen[0]))


def test_align_says_which_state_meets_patch_i(tiny):
    """PAPER.md, M6. "next": the state that predicts token i; the class gives the first. "same": the one with token i as
    its input."""
    q, c = torch.randint(20, (2, 11)), torch.tensor([0, 1])
    predicts, has_seen = tiny()(q, c), tiny(align="same")(q, c)
    assert torch.equal(predicts.tap, has_seen.tap)
    assert (predicts.projected["a"].shape, has_seen.projected["a"].shape) == ((2, 12, 6), (2, 11, 6))
    torch.testing.assert_close(has_seen.projected["a"], predicts.projected["a"][:, 1:])
    q[:, 4] = (q[:, 4] + 1) % 20
    for states, align, first in ((predicts, "next", 5), (has_seen, "same", 4)):
        moved = (tiny(align=align)(q, c).projected["a"] != states.projected["a"]).any(-1).any(0)
        assert moved.tolist() == [row >= first for row in range(len(moved))]


def test_stopping_at_the_tap_gives_the_same_states_and_runs_nothing_above(tiny):
    generator = tiny()
    q, c = torch.randint(20, (2, 11)), torch.tensor([0, 1])
    whole = generator(q, c)
    for module in (generator.layers[1], generator.norm, generator.output):
        module.forward = None
    short = generator(q, c, stop_at_tap=True)
    assert short.logits is None
    assert torch.equal(short.tap, whole.tap)
    assert torch.equal(short.projected["a"], whole.projected["a"])


def test_soft_embeddings_that_are_one_hot_equal_a_lookup(tiny):
    generator = tiny().double()
    q, c = torch.randint(20, (2, 11)), torch.tensor([0, 1])
    u = F.one_hot(q, 20).double() @ generator.embedding
    torch.testing.assert_close(generator(u, c).logits, generator(q, c).logits, atol=1e-12, rtol=0)


def test_any_number_of_tokens_up_to_one_less_than_the_image(tiny):
    generator, c = tiny(), torch.tensor([0, 1])
    q = torch.randint(20, (2, 11))
    logits = generator(q, c).logits
    for m in (0, 1, 7):
        torch.testing.assert_close(generator(q[:, :m], c).logits, logits[:, : m + 1])


def test_the_cache_gives_the_full_forward_at_every_step(tiny):
    for kind in ("identity", "zero"):
        generator = tiny(class_rotary=kind).double()
        q, c = torch.randint(20, (3, 12)), torch.tensor([0, 1, 5])
        logits = generator(q[:, :-1], c).logits
        past, x = generator.empty_past(3), generator.cls_embedding(c)
        assert past[0].keys.dtype == torch.float64
        for step in range(12):
            torch.testing.assert_close(generator.decode(x, past), logits[:, step], atol=1e-12, rtol=0)
            x = generator.tok_embeddings(q[:, step])[:, None]
        # The class and several tokens at once, then single tokens.
        past = generator.empty_past(3)
        x = torch.cat([generator.cls_embedding(c), generator.tok_embeddings(q[:, :6])], dim=1)
        torch.testing.assert_close(generator.decode(x, past), logits[:, 6], atol=1e-12, rtol=0)
        x = generator.tok_embeddings(q[:, 6:7])
        torch.testing.assert_close(generator.decode(x, past), logits[:, 7], atol=1e-12, rtol=0)


def test_dropout_acts_in_training_only_and_on_the_class_row_too(tiny):
    generator, seen = tiny(dropout=0.5, class_drop=0.0), []
    generator.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    q, c = torch.randint(20, (200, 3)), torch.zeros(200, dtype=torch.int64)
    assert torch.equal(generator(q, c).logits, generator(q, c).logits)
    assert (seen[0] == 0).sum() == 0
    generator.train()
    assert not torch.equal(generator(q, c).logits, generator(q, c).logits)
    zeros = (seen[2] == 0).float().mean((0, 2))  # a rate for each row
    assert (zeros - 0.5).abs().max() < 5 * 0.5 / (200 * 32) ** 0.5
    assert [m.p for m in generator.layers[0].modules() if isinstance(m, Dropout)] == [0.5, 0.5]


def test_class_drop_reaches_the_generator(tiny):
    generator = tiny(dropout=0.0, class_drop=0.999999).train()
    q = torch.randint(20, (2, 11))
    dropped = generator(q, torch.tensor([0, 1])).logits
    null = generator.eval()(q, torch.full((2,), generator.null_label)).logits
    assert generator.null_label == 5
    torch.testing.assert_close(dropped, null)


def test_it_starts_at_log_k(tiny):
    generator = tiny(random=False)
    q = torch.randint(20, (2, 12))
    logits = generator(q[:, :-1], torch.tensor([0, 1])).logits
    assert F.cross_entropy(logits.flatten(0, 1), q.flatten()).item() == pytest.approx(math.log(20), abs=1e-6)
    big = tiny(random=False, codebook_size=4096, width=128)
    assert big.embedding.std().item() == pytest.approx(0.02, rel=0.02)
    assert big.layers[0].feed_forward.w2.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert big.projectors["a"][0].weight.std().item() == pytest.approx((128 * 3) ** -0.5, rel=0.1)


def test_names_are_the_released_ones(tiny):
    assert set(tiny(layers=1).state_dict()) == set(KEYS.split())
    assert all(v.shape == s for v, s in zip(tiny().cls_embedding.state_dict().values(), [(6, 32)], strict=True))


@pytest.mark.parametrize(
    ("size", "tap", "count", "projector"),
    [
        ("S", 4, 34_210_560, 6_558_464),
        ("B", 4, 110_888_448, 7_344_896),
        ("L", 8, 342_910_976, 7_869_184),
        ("XL", 12, 774_699_520, 8_393_472),
        ("XXL", 16, 1_410_972_672, 8_917_760),
        ("XXXL", 16, 3_893_027_840, 11_014_912),
    ],
)
def test_sizes_are_the_released_ones(size, tap, count, projector):
    with torch.device("meta"):
        generator = Generator(
            SIZES[size], codebook_size=16384, classes=1000, grid=(16, 16), target_dims={"dinov2-b": 768}
        )
    assert generator.tap == tap  # a third of the depth, appendix A
    sizes = {name: p.numel() for name, p in generator.named_parameters()}
    assert sum(n for name, n in sizes.items() if name.startswith("projectors.")) == projector
    assert sum(sizes.values()) == count + projector


def test_held_fixed_it_passes_gradients_to_its_input_only(tiny):
    generator = tiny(dropout=0.5, class_drop=0.5)
    u, c = torch.randn(2, 11, 32, requires_grad=True), torch.tensor([0, 1])
    want = generator(u.detach(), c, stop_at_tap=True)
    generator.train()
    states = frozen(generator)(u, c, stop_at_tap=True)
    assert torch.equal(states.tap, want.tap)
    states.projected["a"].sum().backward()
    assert u.grad is not None
    assert (u.grad.abs().amax((0, 2)) > 0).all()
    assert all(p.grad is None for p in generator.parameters())
    assert torch.equal(copy.deepcopy(generator).eval()(u, c).tap, want.tap)


def test_under_bf16_autocast_logits_are_float32_and_close(tiny):
    generator = tiny()
    q, c = torch.randint(20, (2, 11)), torch.tensor([0, 1])
    want = generator(q, c).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = generator(q, c).logits
    assert got.dtype == torch.float32
    assert 0 < (got - want).abs().max() < 0.1
    half = generator.to(torch.bfloat16)(q, c)
    assert half.tap.dtype == torch.bfloat16
    assert (half.logits - want).abs().max() < 0.1


def test_an_impossible_shape_is_refused(tiny):
    with pytest.raises(ValueError, match="tap must be a block from 1 to layers = 2; it is 3"):
        tiny(tap=3)
    with pytest.raises(ValueError, match="width must be a multiple of 4 \\* heads = 12"):
        tiny(heads=3)
