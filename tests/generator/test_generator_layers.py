import itertools

import pytest
import torch

from gear.generator.condition import ClassEmbedding
from gear.generator.layers import RMSNorm, Rotary, hidden_width, rotary_angles, rotate


def test_angles_turn_half_the_pairs_with_the_row_and_half_with_the_column():
    h, w, channels = 3, 5, 16
    angles = rotary_angles((h, w), channels)
    assert angles.shape == (h * w, channels // 2)
    for y, x, i in itertools.product(range(h), range(w), range(channels // 4)):
        speed = 10000.0 ** (-2 * i / (channels / 2))
        assert angles[y * w + x, i].item() == pytest.approx(y * speed, rel=1e-6)
        assert angles[y * w + x, channels // 4 + i].item() == pytest.approx(x * speed, rel=1e-6)


def test_scores_depend_only_on_the_displacement():
    h, w, channels = 4, 5, 8
    q, k = torch.randn(2, 1, 1, 1, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    table = Rotary((h, w + 1), channels).table.double()[1:]  # without the class row: tokens 0 .. h (w+1) - 2
    turned_q, turned_k = (rotate(v.expand(-1, -1, len(table), -1), table)[0, 0] for v in (q, k))
    seen: dict[tuple[int, int], float] = {}
    for a, b in itertools.product(range(len(table)), repeat=2):
        move = (a // (w + 1) - b // (w + 1), a % (w + 1) - b % (w + 1))
        score = (turned_q[a] @ turned_k[b]).item()
        assert score == pytest.approx(seen.setdefault(move, score), abs=1e-5)  # the table is float32
    assert max(seen.values()) - min(seen.values()) > 0.1


def test_class_token_is_left_alone_or_made_zero():
    x = torch.randn(1, 1, 1, 8)
    identity, zero = (Rotary((2, 2), 8, kind)(0, 1) for kind in ("identity", "zero"))
    assert torch.equal(rotate(x, identity), x)
    assert torch.equal(rotate(x, zero), torch.zeros_like(x))


def test_table_starts_with_the_class_and_is_as_long_as_the_image():
    rotary = Rotary((2, 3), 8)
    assert rotary.table.shape == (6, 4, 2)
    angles = rotary_angles((2, 3), 8)
    assert torch.equal(rotary(1, 5)[..., 0], angles[:5].cos())
    assert torch.equal(rotary(3, 2)[..., 1], angles[2:4].sin())
    assert rotary.state_dict() == {}


def test_table_survives_a_cast_and_the_meta_device():
    table = Rotary((4, 4), 16).table
    assert torch.equal(Rotary((4, 4), 16).to(torch.bfloat16).table, table)
    assert torch.equal(Rotary((4, 4), 16).to("meta").to_empty(device="cpu").table, table)
    with torch.device("meta"):
        rotary = Rotary((4, 4), 16)
    assert rotary.table.device.type == "meta"


def test_rms_norm_is_computed_in_float32():
    norm = RMSNorm(64)
    torch.nn.init.normal_(norm.weight)
    x = 300 * torch.randn(10, 64)
    want = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    assert torch.allclose(norm(x).double(), want, rtol=1e-5, atol=1e-6)
    # Only the cast back to bf16 rounds, by at most 2^-8.
    rounded = x.bfloat16()
    want = rounded.double() / (rounded.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    assert torch.allclose(norm(rounded).double(), want, rtol=1.01 * 2**-8, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "hidden"), [(384, 1024), (768, 2048), (1024, 2816), (1280, 3584), (96, 256), (32, 96)]
)
def test_hidden_width_is_the_released_one_and_small_for_small_models(width, hidden):
    assert hidden_width(width) == hidden


def test_labels_are_dropped_at_the_given_rate_in_training_only():
    torch.manual_seed(0)
    condition = ClassEmbedding(classes=3, width=1, drop=0.1)
    torch.nn.init.zeros_(condition.embedding_table.weight)
    torch.nn.init.ones_(condition.embedding_table.weight[3])
    labels = torch.randint(3, (40_000,))
    assert condition(condition.dropped(labels)).mean().item() == pytest.approx(0.1, abs=5 * (0.1 * 0.9 / 40_000) ** 0.5)
    assert torch.equal(condition.eval().dropped(labels), labels)
    assert ClassEmbedding(3, 1, drop=0.0).train().embedding_table.weight.shape == (4, 1)
