"""The plain loops of `bench.sampling` draw what ours does, to the last token in float64; and its rows come out."""

import pytest
import torch

from bench import ceilings, sampling, work
from gear import config as cfg
from gear.generator.lighter import Precision


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "CONFIG", cfg.Generator(layers=2, heads=2, width=32, tap=1))
    for name, size in {"K": 50, "SIDE": 3, "TOKENS": 6, "BATCH": 3, "ROUNDS": 1}.items():
        monkeypatch.setattr(sampling, name, size)
    monkeypatch.setattr(work, "ceilings", lambda device: ceilings.Ceilings(1e9, 1e9, 1e9, 1e9))


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_the_sides_draw_the_same_tokens(scale: float) -> None:
    g = sampling.first_tokens(sampling.model(), sampling.TOKENS).double()
    drawn = sampling.ours(g, 3, scale)
    assert drawn.unique().numel() > 3
    assert torch.equal(drawn, sampling.cached(g, 3, scale, sampling.by_noise(3), 6))
    assert torch.equal(sampling.ours(g, 1), sampling.uncached(g, sampling.by_noise(1), 6))


def test_rows() -> None:
    rows = sampling.run()
    assert [row.path for row in rows] == [
        *("sample 1", "sample 16", "sample 16, guided", "sample 16, bfloat16"),
        *("sample 1, bfloat16 to our float32", "sample 1, int8 to our float32"),
    ]
    assert all(row.ours > 0 and row.plain > 0 and row.floor for row in rows)
    with pytest.raises(AssertionError, match="do not draw the same: 50% of the tokens"):
        sampling.same(torch.tensor([1, 2]), torch.tensor([1, 3]))


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_other_logits_are_an_error(precision: Precision) -> None:
    """A tenth of each left out is more than rounding makes of two blocks."""
    g = sampling.first_tokens(sampling.model(), sampling.TOKENS)
    right = sampling.logits_of(g, sampling.ours(g, 1))
    assert right.shape == (1, 6, 50)
    torch.testing.assert_close(right, g(sampling.ours(g, 1)[:, :-1], torch.tensor([0])).logits)
    sampling.near(right, right, precision)
    with pytest.raises(AssertionError, match=f"in {precision} are 10.00% off those in float32"):
        sampling.near(0.9 * right, right, precision)
