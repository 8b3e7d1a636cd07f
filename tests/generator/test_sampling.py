import itertools
import math

import pytest
import torch

from gear.generator import class_labels, generate, sampling
from gear.generator.sampling import LANES, draw, filter_logits, guide, seat, uniforms


def test_guide_is_the_formula():
    c, u = torch.randn(2, 4, 9, dtype=torch.float64)
    for scale in (0.0, 0.5, 1.0, 4.0):
        torch.testing.assert_close(guide(c, u, scale), (1 - scale) * u + scale * c)


# ------------------------------------------------------------------------------------------- filter_logits and draw


def naive_filter(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Probabilities after temperature, top-k and top-p, token by token."""
    weights = [math.exp(v / temperature) for v in logits]
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    kept = order[:top_k] if top_k else order
    total = sum(weights[i] for i in kept)
    nucleus, mass = [], 0.0
    for i in kept:
        if mass >= top_p:
            break
        nucleus.append(i)
        mass += weights[i] / total
    total = sum(weights[i] for i in nucleus)
    return [weights[i] / total if i in nucleus else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 5, 100])
@pytest.mark.parametrize("top_p", [1e-9, 0.5, 0.9, 1.0])
def test_filter_equals_the_naive_one(temperature, top_k, top_p):
    logits = 2 * torch.randn(6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = filter_logits(logits, temperature, top_k, top_p).softmax(-1)
    want = torch.tensor([naive_filter(row, temperature, top_k, top_p) for row in logits.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got, want)


def test_temperature_zero_keeps_the_largest_only():
    logits = torch.tensor([[1.0, 3.0, 3.0], [0.0, -1.0, -2.0]])
    assert filter_logits(logits, temperature=0.0).softmax(-1).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_the_vocabulary_is_not_sorted_without_need(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("sorted")

    for name in ("sort", "topk", "argsort"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
        monkeypatch.setattr(torch, name, refuse)
    filter_logits(torch.randn(2, 8))
    with pytest.raises(AssertionError, match="sorted"):
        filter_logits(torch.randn(2, 8), top_p=0.5)


def test_draw_inverts_the_distribution_function():
    p = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    for noise, token in [(0.0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (1 - 2**-40, 4)]:
        assert draw(p[None], torch.tensor([noise], dtype=torch.float64)).item() == token


def test_draw_never_runs_off_the_end():
    p = torch.rand(2000, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p[:, -100:] = 0  # cdf is flat there; a rounding error would draw one of these, or 300
    assert draw(p, torch.full((2000,), 1 - 2**-40, dtype=torch.float64)).max() == 199


def chi_square(counts: torch.Tensor, p: torch.Tensor) -> float:
    """In standard deviations from its mean."""
    expected = counts.sum() * p
    statistic = ((counts - expected) ** 2 / expected).sum()
    return ((statistic - (len(p) - 1)) / math.sqrt(2 * (len(p) - 1))).item()


def test_draws_follow_the_softmax():
    p = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    noise = torch.cat([uniforms(3, image, 200) for image in range(1000)])
    counts = torch.bincount(draw(p.expand(len(noise), -1), noise), minlength=50)
    assert abs(chi_square(counts, p)) < 4


def test_noise_is_a_function_of_seed_and_image():
    assert torch.equal(uniforms(1, 2, 8), uniforms(1, 2, 16)[:8])
    streams = {tuple(uniforms(seed, image, 4).tolist()) for seed in range(20) for image in range(20)}
    assert len(streams) == 400
    assert 0 <= min(itertools.chain(*streams)) < max(itertools.chain(*streams)) < 1


# ----------------------------------------------------------------------------------------------------------- generate


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cfg_scale": 3.0},
        {"cfg_scale": 0.0},
        {"cfg_scale": 3.0, "cfg_interval": (2, 7)},
        {"cfg_scale": 3.0, "cfg_interval": (0, 3)},
        {"cfg_scale": 3.0, "cfg_interval": (9, 99)},
        {"cfg_scale": 2.0, "temperature": 0.7, "top_k": 6, "top_p": 0.8},
        {"cfg_scale": 2.0, "temperature": 0.0},
    ],
    ids=str,
)
def test_equals_sampling_by_full_forward_passes(tiny, options):
    generator = tiny().double()
    labels, ids = torch.tensor([0, 1, 4, 2]), [5, 0, 37, 9]
    tokens = generate(generator, labels, seed=7, image_ids=ids, **options)
    filters = {k: v for k, v in options.items() if not k.startswith("cfg")}
    scale, (a, b) = options.get("cfg_scale", 1.0), options.get("cfg_interval", (0, 12))
    for row, (label, image) in enumerate(zip(labels, ids, strict=True)):
        q = torch.empty(1, 0, dtype=torch.int64)
        for step in range(12):
            c = generator(q, label[None]).logits[0, -1]
            u = generator(q, torch.tensor([5])).logits[0, -1]
            logits = u + scale * (c - u) if a <= step < b else c
            p = filter_logits(logits[None], **filters)[0].softmax(-1)
            noise, token, below = uniforms(7, image, 12)[step], 0, p[0]
            while noise >= below:
                token += 1
                below += p[token]
            q = torch.cat([q, torch.tensor([[token]])], dim=1)
        assert tokens[row].tolist() == q[0].tolist()


@pytest.mark.parametrize(
    ("options", "guided"),
    [
        ({}, 0),
        ({"cfg_scale": 1.0, "cfg_interval": (0, 12)}, 0),
        ({"cfg_scale": 2.0, "cfg_interval": (4, 4)}, 0),
        ({"cfg_scale": 2.0, "cfg_interval": (3, 5)}, 5),
        ({"cfg_scale": 2.0}, 12),
    ],
)
def test_the_unconditional_rows_run_no_longer_than_needed(tiny, options, guided, monkeypatch):
    generator, rows = tiny(), []
    decode = generator.decode
    monkeypatch.setattr(generator, "decode", lambda x, past: (rows.append(len(x)), decode(x, past))[1])
    generate(generator, torch.tensor([0]), seed=0, **options)
    assert rows == [2 * LANES] * guided + [LANES] * (12 - guided)


@pytest.mark.parametrize("kind", [torch.int32, torch.int16])
def test_labels_of_any_whole_numbers(tiny, kind):
    generator, labels = tiny(), torch.tensor([3, 0, 4])
    assert torch.equal(generate(generator, labels.to(kind), seed=0), generate(generator, labels, seed=0))


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_a_pass_has_exactly_as_many_rows_as_asked_for(tiny, batch, monkeypatch):
    generator, rows, finished = tiny().double(), set(), []
    labels = torch.arange(7) % 5
    want = generate(generator, labels, seed=0)
    decode = generator.decode
    monkeypatch.setattr(generator, "decode", lambda x, past: (rows.add(len(x)), decode(x, past))[1])
    got = generate(generator, labels, seed=0, batch=batch, finished=lambda *done: finished.append(done))
    assert rows == {batch}
    assert torch.equal(got, want)  # in float64 no token is decided by a last bit
    assert [i for indices, _ in finished for i in indices] == list(range(7))
    assert torch.equal(torch.cat([tokens for _, tokens in finished]), want)
    assert len(finished) == -(-7 // batch)


def test_generated_images_follow_the_model(tiny):
    generator = tiny(codebook_size=6, grid=(1, 2)).double()
    label, null = torch.tensor([3]), torch.tensor([5])
    tokens = generate(generator, label.expand(6000), seed=0, cfg_scale=1.5)

    def p(q):
        c, u = generator(q, label).logits[0, -1], generator(q, null).logits[0, -1]
        return (u + 1.5 * (c - u)).softmax(-1)

    joint = torch.cat([p(torch.empty(1, 0, dtype=torch.int64))[k] * p(torch.tensor([[k]])) for k in range(6)])
    counts = torch.bincount(tokens[:, 0] * 6 + tokens[:, 1], minlength=36)
    assert abs(chi_square(counts, joint)) < 4


def test_the_same_seed_gives_the_same_tokens_at_any_split(tiny):
    n, generator = 300, tiny(codebook_size=1000, width=64, grid=(2, 4), classes=10)
    labels = class_labels(n, 10, None, seed=0)

    def tokens(ids: list[int], **options) -> torch.Tensor:
        return generate(generator, labels[ids], seed=1, cfg_scale=1.5, image_ids=ids, **options)

    everything = list(range(n))
    whole = tokens(everything)
    assert len({tuple(row) for row in whole.tolist()}) == n
    for size in (7, 32, 100):
        parts = [tokens(everything[i : i + size]) for i in range(0, n, size)]
        assert torch.equal(torch.cat(parts), whole), f"calls of {size}"
    for i in range(0, n, 13):
        assert torch.equal(tokens([i])[0], whole[i]), f"image {i} alone"
    for rank in range(3):
        assert torch.equal(tokens(everything[rank::3]), whole[rank::3]), f"rank {rank} of 3"
    shuffled = torch.randperm(n).tolist()
    assert torch.equal(tokens(shuffled), whole[shuffled])
    assert not torch.equal(generate(generator, labels, seed=2, cfg_scale=1.5), whole)


@pytest.mark.parametrize("bf16", [False, True])
def test_not_a_bit_of_the_logits_depends_on_the_split(tiny, bf16, monkeypatch):
    """Equal tokens prove little: without fixed rows the logits differ in the last bits, and few tokens notice."""
    generator, seen = tiny(codebook_size=1000, width=96, grid=(2, 4)), []
    monkeypatch.setattr(sampling, "filter_logits", lambda logits, *_: (seen.append(logits), logits)[1])

    def logits(ids: list[int]) -> torch.Tensor:
        """(ids, N, K), of an image id below 32, which is also its row."""
        seen.clear()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            generate(generator, torch.tensor(ids) % 5, seed=1, cfg_scale=1.5, image_ids=ids)
        return torch.stack(seen[:8], dim=1)[[i for i in ids if i < 32]]

    whole = logits(list(range(40)))
    assert torch.equal(logits([3, 4, 5, 31]), whole[[3, 4, 5, 31]])
    for i in range(0, 32, 5):
        assert torch.equal(logits([i])[0], whole[i])


def test_every_image_has_its_row():
    ids = [3, 4, 5, 6, 35, 100]
    passes = seat(ids, 32)
    assert len(passes) == 2  # 3 and 35 want row 3, 4 and 100 want row 4
    assert sorted(i for seats in passes for i in seats if i is not None) == list(range(6))
    assert all(ids[i] % 32 == row for seats in passes for row, i in enumerate(seats) if i is not None)
    assert len(seat(range(17, 17 + 64), 32)) == 2


def test_the_mode_is_restored_and_dropout_is_off(tiny):
    generator = tiny(dropout=0.5, class_drop=0.5).train()
    labels = torch.tensor([0, 1])
    a, b = (generate(generator, labels, seed=0) for _ in range(2))
    assert torch.equal(a, b)
    assert generator.training
    assert not generate(generator.eval(), labels, seed=0).is_inference()
    assert not generator.training


def test_progress_counts_token_steps(tiny):
    seen = []
    generate(tiny(), torch.zeros(LANES + 1, dtype=torch.int64), seed=0, progress=lambda *done: seen.append(done))
    assert seen == [(i + 1, 24) for i in range(24)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([0, 5])}, "a class label must be from 0 to 4; 5 was asked for"),
        ({"cfg_scale": float("inf")}, "cfg_scale must be finite; it is inf"),
        ({"labels": torch.tensor([-1])}, "a class label must be from 0 to 4; -1 was asked for"),
        ({"cfg_scale": -0.5}, "cfg_scale must be 0 or more"),
        ({"cfg_interval": (3, 2)}, "cfg_interval must be a token range"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"top_k": -1}, "top_k must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1 .*; it is 1.5"),
        ({"seed": -1}, "seed and image_ids must be 0 or more"),
        ({"image_ids": [1]}, "image_ids must number each of the 2 labels; there are 1"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named(tiny, changes, message):
    arguments = {"labels": torch.tensor([0, 1]), "seed": 0} | changes
    with pytest.raises(ValueError, match=message):
        generate(tiny(), **arguments)


def test_a_diverged_generator_is_named(tiny):
    generator = tiny()
    torch.nn.init.constant_(generator.layers[1].feed_forward.w2.weight, torch.nan)
    with pytest.raises(ValueError, match="logits are not finite"):
        generate(generator, torch.tensor([0]), seed=0)


# ------------------------------------------------------------------------------------------------------------- labels


def test_labels_are_balanced_and_so_is_every_beginning():
    labels = class_labels(23, 5, None, seed=0)
    for n in range(1, 24):
        counts = torch.bincount(labels[:n], minlength=5)
        assert counts.max() - counts.min() <= 1
    orders = {tuple(class_labels(5, 5, None, seed).tolist()) for seed in range(10)}
    assert len(orders) > 1
    assert torch.equal(labels, class_labels(23, 5, None, seed=0))


def test_given_labels_repeat():
    assert class_labels(5, 3, [2, 0], seed=0).tolist() == [2, 0, 2, 0, 2]
    with pytest.raises(ValueError, match="a class label must be from 0 to 2; 3 was asked for"):
        class_labels(5, 3, [3], seed=0)
    with pytest.raises(ValueError, match="number of images must be at least 1; it is 0"):
        class_labels(0, 3, None, seed=0)
