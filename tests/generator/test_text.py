"""The generator with a caption in place of a class: blocks against a slow twin, who sees whom, guidance, the cache."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from gear import config as cfg
from gear import ranks
from gear.generator import Generator, generate, sampling
from gear.generator.beginning import Reading, read
from gear.generator.layers import Block, rotate
from gear.prompts import Prompts
from gear.update import frozen

T, C = 6, 10  # rows of text, channels of the text encoder


@pytest.fixture
def talking(tiny):
    """A tiny generator with text; keyword arguments of `cfg.Text` and of `tiny`."""

    def make(**changes) -> Generator:
        names = cfg.Text.__dataclass_fields__
        own: dict[str, Any] = {"tokens": T, "dual": 1} | {n: v for n, v in changes.items() if n in names}
        generator = tiny(
            **{"layers": 3, "tap": 2} | {n: v for n, v in changes.items() if n not in names},
            text=cfg.Text(**own),
            text_width=C,
            classes=0,
        )
        torch.nn.init.normal_(generator.cls_embedding.null)
        return generator

    return make


def captions(*lengths: int, padding: str = "left", seed: int = 0, dtype=torch.float32) -> Prompts:
    states = torch.randn(len(lengths), T, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    place = torch.arange(T)
    valid = torch.stack([place >= T - n if padding == "left" else place < n for n in lengths])
    return Prompts(torch.where(valid[..., None], states, 0).to(dtype), valid)


@torch.no_grad()
def twin(generator: Generator, prompts: Prompts, q: torch.Tensor, i: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Image i in float64, by loops over blocks, heads and rows, from appendix B's description. The text is taken
    without its padding; text rows are not rotated. Returns the output of every block and the logits, from the row
    that predicts token 0 on."""
    p = {k: v.double() for k, v in generator.state_dict().items()}
    w, heads, dual = generator.grid[1], generator.heads, generator.config.dual_blocks
    words = prompts.states[i][prompts.valid[i]].double() @ p["cls_embedding.cap_proj.fc1.weight"].T
    gelu = 0.5 * words * (1 + torch.tanh(math.sqrt(2 / math.pi) * (words + 0.044715 * words**3)))
    x = torch.cat([gelu @ p["cls_embedding.cap_proj.fc2.weight"].T, p["tok_embeddings.weight"][q[i]]])
    (n, width), text = x.shape, len(words)
    c = width // heads

    def norm(v, weight):
        return torch.stack([r / math.sqrt((r**2).mean() + 1e-5) for r in v]) * weight

    def turn(v, row):
        if row < text:
            return v
        y, x_ = divmod(row - text, w)
        speeds = [10000.0 ** (-4 * j / c) for j in range(c // 4)]
        angles = torch.tensor([y * s for s in speeds] + [x_ * s for s in speeds], dtype=torch.float64)
        return torch.view_as_real(torch.view_as_complex(v.view(-1, 2)) * torch.exp(1j * angles)).flatten()

    blocks = []
    for layer in range(len(generator.layers)):
        block = {k.removeprefix(f"layers.{layer}."): v for k, v in p.items() if k.startswith(f"layers.{layer}.")}

        def own(name, row, block=block, layer=layer):
            return block[name.format("_text" if layer < dual and row < text else "")]

        normed = torch.cat([norm(x[r : r + 1], own("attention_norm{}.weight", r)) for r in range(n)])
        qkv = torch.stack([own("attention.wqkv{}.weight", r) @ normed[r] for r in range(n)])
        queries, keys, values = qkv.split(width, dim=1)
        mixed = torch.zeros_like(x)
        for head in range(heads):
            s = slice(head * c, (head + 1) * c)
            for row in range(n):
                seen = range(row + 1)
                scores = torch.stack([turn(queries[row, s], row) @ turn(keys[j, s], j) for j in seen]) / math.sqrt(c)
                mixed[row, s] = (scores.exp() / scores.exp().sum()) @ values[: row + 1, s]
        x = x + torch.stack([own("attention.wo{}.weight", r) @ mixed[r] for r in range(n)])
        v_in = norm(x, block["ffn_norm.weight"])
        gate = v_in @ block["feed_forward.w1.weight"].T
        x = x + (gate * torch.sigmoid(gate) * (v_in @ block["feed_forward.w3.weight"].T)) @ (
            block["feed_forward.w2.weight"].T
        )
        blocks.append(x[text - 1 :])
    return blocks, (norm(x, p["norm.weight"]) @ p["output.weight"].T)[text - 1 :]


@pytest.mark.parametrize("dual", [0, 1, 2, 3])
def test_equals_the_slow_twin(talking, dual):
    generator = talking(dual=dual).double()
    q, c = torch.randint(20, (3, 7)), captions(6, 2, 1, dtype=torch.float64)
    states = generator(q, c)
    for i in range(3):
        blocks, logits = twin(generator, c, q, i)
        # 1e-5: the angles are float32 in the generator and float64 in the twin.
        torch.testing.assert_close(states.tap[i], blocks[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(states.logits[i], logits, atol=1e-5, rtol=1e-5)
    assert states.projected["a"].shape == (3, 8, 6)


def test_the_paper_scale_model_has_the_published_number_of_parameters():
    with torch.device("meta"):
        architecture = replace(cfg.SIZES["1B"], text=cfg.Text())
        generator = Generator(architecture, codebook_size=16384, classes=0, grid=(16, 16), text_width=2048)
    assert sum(p.numel() for p in generator.parameters()) == 1_047_659_040
    text = {"cls_embedding": 5_022_720, "_text": 99_550_080}
    for part, n in text.items():
        assert sum(p.numel() for name, p in generator.named_parameters() if part in name) == n
    assert (generator.tap, architecture.dual_blocks) == (12, 12)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("k", [0, 3, 6])
def test_token_k_changes_only_rows_after_k(talking, padding, k):
    generator = talking(padding=padding)
    q, c = torch.randint(20, (2, 7)), captions(4, 6, padding=padding)
    other = q.clone()
    other[:, k] = (q[:, k] + 1) % 20
    a, b = generator(q, c).logits, generator(other, c).logits
    assert torch.equal(a[:, : k + 1], b[:, : k + 1])
    assert (a[:, k + 1 :] != b[:, k + 1 :]).any(-1).all()


def blocks_of(generator: Generator, q: torch.Tensor, c: Prompts) -> list[torch.Tensor]:
    """What comes out of each block, all rows: text with its padding, then image tokens."""
    seen = []
    hooks = [block.register_forward_hook(lambda _, __, out: seen.append(out)) for block in generator.layers]
    generator(q, c)
    for hook in hooks:
        hook.remove()
    return seen


def test_a_word_changes_nothing_before_it_and_all_that_follows(talking):
    generator = talking()
    q, c = torch.randint(20, (2, 5)), captions(4, 6)
    states = c.states.clone()
    states[:, 3] += 1
    for a, b in zip(blocks_of(generator, q, c), blocks_of(generator, q, Prompts(states, c.valid)), strict=True):
        assert torch.equal(a[:, 2:3], b[:, 2:3])  # a word before it, of both captions
        assert torch.equal(a[1, :3], b[1, :3])
        assert (a[:, 3:] != b[:, 3:]).any(-1).all()


@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_influences_nothing(talking, padding):
    """Not one bit. Behind, the last row of it predicts the first token, as in the release; in front, none does."""
    generator = talking(padding=padding)
    q, c = torch.randint(20, (3, 7)), captions(4, 1, 6, padding=padding)
    noise = torch.where(c.valid[..., None], c.states, 100 * torch.randn(3, T, C))
    a, b = generator(q, c).logits, generator(q, Prompts(noise, c.valid)).logits
    first = 0 if padding == "left" else 1
    assert torch.equal(a[:, first:], b[:, first:])
    assert first == 0 or not torch.equal(a[:2, 0], b[:2, 0])


def test_padding_in_front_is_as_if_it_were_not_there(talking):
    generator = talking().double()
    q, c = torch.randint(20, (1, 7)), captions(4, dtype=torch.float64)
    short = Prompts(c.states[:, 2:], c.valid[:, 2:])
    torch.testing.assert_close(generator(q, short).logits, generator(q, c).logits, atol=1e-12, rtol=0)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_order_and_the_mask_say_the_same(talking, padding):
    """Gradients too; the mask is written out here."""
    generator = talking(padding=padding).double()
    q, c = torch.randint(20, (3, 7)), captions(4, 1, 6, padding=padding, dtype=torch.float64)
    sight = generator.sight(c, T + 7)
    holds = torch.cat([c.valid, torch.ones(3, 7, dtype=torch.bool)], 1)
    mask = torch.zeros(3, 1, T + 7, T + 7, dtype=torch.bool)
    for i in range(3):
        for row in range(T + 7):
            for column in range(row + 1):
                mask[i, 0, row, column] = holds[i, column] or row == column
    explicit = replace(sight, order=None, inverse=None, mask=mask)

    def run(chosen):
        generator.zero_grad()
        generator.sight = lambda *_: chosen
        logits = generator(q, c).logits
        (logits.square().sum()).backward()
        return logits, [p.grad for name, p in generator.named_parameters() if "projectors" not in name]

    (a, a_grads), (b, b_grads) = run(sight), run(explicit)
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    for x, y in zip(a_grads, b_grads, strict=True):
        torch.testing.assert_close(x, y, atol=1e-9, rtol=1e-9)


# ------------------------------------------------------------------------------------- rotary of the text rows


def attention_to_text(generator: Generator, q: torch.Tensor, c: Prompts) -> torch.Tensor:
    """Softmax weights of image rows on the words of image 0's caption, in the last block: (H, rows, words)."""
    held = {}
    last = generator.layers[-1]
    assert isinstance(last, Block)
    attention = last.attention
    hook = attention.register_forward_hook(lambda module, given, out: held.update(x=given[0]))
    generator(q, c)
    hook.remove()
    n = T + q.shape[1]
    queries, keys, _ = attention.wqkv(held["x"]).unflatten(-1, (3, generator.heads, -1)).permute(2, 0, 3, 1, 4)
    rotary = generator.rotary(0, n)
    scores = rotate(queries, rotary) @ rotate(keys, rotary).transpose(-1, -2) / math.sqrt(queries.shape[-1])
    words = c.valid[0].nonzero()[:, 0]
    return scores[0, :, T:][..., words]


def test_zero_is_blind_to_what_a_word_says_and_identity_is_not(talking):
    """The released rotation makes q = k = 0 for text: every image token weighs all words the same."""
    q, c = torch.randint(20, (1, 7)), captions(4)
    blind = attention_to_text(talking(rotary="zero"), q, c)
    assert torch.equal(blind, torch.zeros_like(blind))
    seeing = attention_to_text(talking(), q, c)
    assert (seeing.std(-1) > 1e-2).all()


# ---------------------------------------------------------------------------------- the unconditional input


@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_dropped_caption_is_the_unconditional_input_exactly(talking, padding):
    generator = talking(padding=padding, drop=0.999999, dropout=0.0)
    q, c = torch.randint(20, (3, 7)), captions(4, 1, 6, padding=padding)
    with torch.no_grad():
        dropped = generator.train()(q, c).logits
        none = generator.eval()(q, generator.cls_embedding.unconditional(3, T)).logits
    assert torch.equal(dropped, none)
    assert not torch.equal(dropped, generator(q, c).logits)


def test_the_unconditional_input_is_one_row(talking):
    generator = talking()
    none = generator.cls_embedding.unconditional(2, T)
    assert torch.equal(none.states[:, -1], generator.cls_embedding.null.expand(2, C))
    assert none.valid.tolist() == [[False] * (T - 1) + [True]] * 2
    released = talking(padding="right").cls_embedding.unconditional(2, T)
    assert not released.valid.any()
    assert not released.states.any()


def test_the_drop_rate(talking):
    generator = talking(drop=0.1).train()
    n = 20_000
    torch.manual_seed(3)
    c = Prompts(torch.ones(n, T, C), torch.ones(n, T, dtype=torch.bool))
    dropped = (~generator.cls_embedding.dropped(c).valid).any(1).float().mean().item()
    assert abs(dropped - 0.1) < 4 * math.sqrt(0.09 / n)
    torch.manual_seed(3)
    again = generator.cls_embedding.dropped(c)
    torch.manual_seed(3)
    with ranks.in_part(1, 2):  # the second half of a batch twice as large
        half = generator.cls_embedding.dropped(c[: n // 2])
    torch.manual_seed(3)
    assert torch.equal(half.valid, again.valid[n // 2 :])


def test_the_soft_branch_drops_nothing(talking):
    generator = talking(drop=0.9).train()
    q, c = torch.randint(20, (4, 7)), captions(4, 1, 6, 2)
    fixed = frozen(generator)(q, c).logits
    assert torch.equal(fixed, generator.eval()(q, c).logits)


# ------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(("scale", "interval"), [(1.0, None), (3.0, None), (3.0, (2, 7)), (0.0, (0, 1))])
@pytest.mark.parametrize("negative", [False, True])
def test_sampling_equals_full_forward_passes(talking, padding, scale, interval, negative, monkeypatch):
    """Of prompts of several lengths in one pass, the cache against the whole sequence anew for every token: each token,
    and the logits it was drawn by. Memory that was not written to holds NaN."""
    generator, drawn_by = talking(padding=padding).double(), []
    monkeypatch.setattr(torch, "empty", nans(torch.empty))
    monkeypatch.setattr(sampling, "filter_logits", lambda logits, *_: drawn_by.append(logits[:5].clone()) or logits)
    c = captions(4, 1, 6, padding=padding, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 1, 0])
    away = captions(3, padding=padding, seed=9, dtype=torch.float64) if negative else None
    q = generate(generator, labels, prompts=c, negative=away, seed=4, cfg_scale=scale, cfg_interval=interval)
    first, end = interval or (0, 12)
    nothing = generator.cls_embedding.unconditional(5, T) if away is None else away[torch.zeros(5, dtype=torch.long)]
    with torch.no_grad():
        for step in range(12):
            logits = generator(q[:, :step], c[labels]).logits[:, -1]
            if scale != 1 and first <= step < end:
                none = generator(q[:, :step], nothing).logits[:, -1]
                logits = none + scale * (logits - none)
            torch.testing.assert_close(drawn_by[step], logits, atol=1e-10, rtol=1e-10)
            noise = torch.stack([sampling.uniforms(4, i, 12)[step] for i in range(5)])
            assert torch.equal(sampling.draw(logits.softmax(-1), noise), q[:, step])


def nans(empty):
    """`torch.empty` whose memory is not what anybody wants to read."""

    def filled(*args, **kwargs):
        made = empty(*args, **kwargs)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    return filled


@pytest.mark.parametrize("padding", ["left", "right"])
def test_in_bfloat16_the_cache_says_what_the_whole_does(talking, padding):
    generator = talking(padding=padding)
    c, q = captions(4, 1, padding=padding), torch.randint(20, (2, 12))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = generator(q[:, :-1], c).logits
        begun = Reading(generator, c, generator.cls_embedding.unconditional(1, T)).begin(torch.arange(2), False)
        assert begun.past[0].keys.dtype == torch.bfloat16
        logits, found = begun.logits, [begun.logits]
        for step in range(11):
            logits = sampling._next(generator, begun, generator.tok_embeddings(q[:, step])[:, None])
            found.append(logits)
    scale = whole.std()
    assert (torch.stack(found, 1) - whole).abs().max() < 0.1 * scale


def test_text_that_has_no_row_cannot_see_the_image(talking):
    """No encoder gives such a prompt where padding lies in front; and sampling refuses it."""
    generator = talking()
    c = Prompts(torch.zeros(1, T, C), torch.zeros(1, T, dtype=torch.bool))
    q = torch.randint(20, (1, 8))
    other = q.clone()
    other[:, 6] = (q[:, 6] + 1) % 20
    assert torch.equal(generator(q, c).logits[:, :7], generator(other, c).logits[:, :7])
    with pytest.raises(ValueError, match="text in its last row"):
        generate(generator, torch.tensor([0]), prompts=c, seed=0)
    with pytest.raises(ValueError, match="all its padding in front"):
        generate(generator, torch.tensor([0]), prompts=captions(3, padding="right"), seed=0)


def test_a_prompt_is_read_once_for_all_its_images(talking, monkeypatch):
    generator, passes = talking(), []

    def counted(*args):
        passes.append(args)
        return read(*args)

    monkeypatch.setattr("gear.generator.beginning.read", counted)
    generate(generator, torch.zeros(70, dtype=torch.long), prompts=captions(4), seed=0)
    assert len(passes) == 1
    generate(generator, torch.zeros(70, dtype=torch.long), prompts=captions(4), seed=0, cfg_scale=2.0)
    assert len(passes) == 1 + 2
    rows = {len(c.valid[0]) for _, c in passes}
    assert rows == {T}


def test_many_prompts_do_not_pile_up(talking):
    generator = talking()
    many = captions(*[1 + i % T for i in range(200)])
    reading = Reading(generator, many, generator.cls_embedding.unconditional(1, T))
    for start in range(0, 200, 4):
        reading.begin(torch.arange(start, start + 4), True)
        assert len(reading.known) <= 4 + 2


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_tokens_of_a_prompt_do_not_depend_on_the_others(talking, scale):
    generator = talking()
    c, ids = captions(4, 1, 6, 2), list(range(40))
    labels = torch.tensor([i % 4 for i in ids])
    together = generate(generator, labels, prompts=c, seed=1, cfg_scale=scale)
    for label in range(4):
        mine = [i for i in ids if i % 4 == label]
        alone = generate(
            generator,
            torch.zeros(len(mine), dtype=torch.long),
            prompts=c[label : label + 1],
            seed=1,
            cfg_scale=scale,
            image_ids=mine,
        )
        assert torch.equal(alone, together[mine])


def test_a_negative_prompt_takes_the_place_of_none(talking):
    generator = talking()
    c, labels = captions(4), torch.zeros(3, dtype=torch.long)
    none = generator.cls_embedding.unconditional(1, T)
    plain = generate(generator, labels, prompts=c, seed=1, cfg_scale=4.0)
    assert torch.equal(generate(generator, labels, prompts=c, negative=none, seed=1, cfg_scale=4.0), plain)
    away = generate(generator, labels, prompts=c, negative=captions(2, seed=5), seed=1, cfg_scale=4.0)
    assert not torch.equal(away, plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": None}, r"give prompts, which its text encoder \(gear\.text\.load\) makes"),
        ({"prompts": Prompts(torch.zeros(1, T, 4), torch.ones(1, T, dtype=torch.bool))}, "have 4 channels.* of 10"),
        ({"prompts": Prompts(torch.zeros(1, 9, C), torch.ones(1, 9, dtype=torch.bool))}, "have 9 rows.*at most 6"),
        ({"negative": captions(1, 2)}, "must be one prompt; there are 2"),
        ({"labels": torch.tensor([1])}, "row 1 of prompts was asked for; there is 1 row, number 0"),
        ({"labels": torch.tensor([0, -1]), "prompts": captions(3, 2)}, "row -1 of prompts .* there are 2 rows, 0 to 1"),
    ],
)
def test_a_wrong_prompt_is_named(talking, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(talking(), **{"labels": torch.tensor([0]), "prompts": captions(3), "seed": 0} | changes)


def test_a_generator_of_classes_reads_no_prompts(tiny):
    with pytest.raises(ValueError, match="draws classes"):
        generate(tiny(), torch.tensor([0]), prompts=captions(3), seed=0)


def test_saved_and_loaded_it_is_the_same(talking, tmp_path):
    generator = talking()
    generator.save_pretrained(tmp_path / "it")
    again = Generator.from_pretrained(tmp_path / "it")
    q, c = torch.randint(20, (2, 7)), captions(4, 6)
    assert torch.equal(again(q, c).logits, generator(q, c).logits)
    assert torch.equal(again.cls_embedding.null, generator.cls_embedding.null)
    card = (tmp_path / "it" / "README.md").read_text()
    assert "pipeline_tag: text-to-image" in card
    assert "class-conditional" not in card
