"""Random numbers by row of the whole batch: the same for any split of it, and as good as torch's."""

import subprocess
import sys

import pytest
import torch

from gear import ranks
from gear.noise import Dropout, uniform

CPU = torch.device("cpu")


def in_parts(make, n: int, parts: int) -> torch.Tensor:
    """What `make` gives for rows [a, b) of n, in parts of one batch, the generator in the same state for each."""
    found = []
    for i in range(parts):
        torch.manual_seed(7)
        with ranks.in_part(i, parts):
            found.append(make(i * n // parts, (i + 1) * n // parts))
    return torch.cat(found)


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_split_batch_draws_what_the_whole_one_does(parts: int) -> None:
    x, dropout = torch.randn(8, 5, 6), Dropout(0.3)
    assert torch.equal(in_parts(lambda a, b: dropout(x[a:b]), 8, parts), in_parts(lambda a, b: dropout(x[a:b]), 8, 1))
    whole = in_parts(lambda a, b: uniform(b - a, CPU), 8, 1)
    assert torch.equal(in_parts(lambda a, b: uniform(b - a, CPU), 8, parts), whole)
    assert len(whole.unique()) == 8


COMPILED = """
import torch
from gear import ranks
from gear.noise import Dropout

graphs = []
x, dropout = torch.randn(24, 3), Dropout(0.3)
compiled = torch.compile(dropout, backend=lambda graph, inputs: graphs.append(graph) or graph)
for i in range(12):
    part = x[2 * i : 2 * i + 2]
    with ranks.in_part(i, 12):
        torch.manual_seed(7)
        wanted = dropout(part)
        torch.manual_seed(7)
        assert torch.equal(compiled(part), wanted)
assert len(graphs) == 1, len(graphs)
"""


def test_a_compiled_layer_is_one_graph_in_every_part() -> None:
    """torch gives up at the eighth graph of one function. In a process of its own, without these tests' checks of
    shapes, which cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_dropout_is_off_in_evaluation_and_draws_nothing_where_it_is_zero() -> None:
    x = torch.randn(3, 4)
    before = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_mask_has_the_right_rate_everywhere(p: float) -> None:
    """Over all, along every row and at every place: within five standard errors (of 2 x 256 + 1 estimates)."""
    kept = (Dropout(p)(torch.ones(256, 16, 16)) != 0).double()
    assert abs(kept.mean().item() - (1 - p)) < 5 * (p * (1 - p) / kept.numel()) ** 0.5
    for rate in (kept.mean((1, 2)), kept.mean(0)):
        assert (rate - (1 - p)).abs().max() < 5 * (p * (1 - p) / 256) ** 0.5


def test_rows_places_and_calls_are_independent() -> None:
    """The correlations between masks of any two rows, and between any two places, are those of chance; torch's own
    dropout has the same largest ones."""
    n, places = 256, 4096
    dropout = Dropout(0.5)

    def largest(kept: torch.Tensor) -> float:
        z = (kept - kept.mean(1, keepdim=True)) / kept.std(1, keepdim=True)
        correlation = z @ z.T / kept.shape[1]
        return correlation.fill_diagonal_(0).abs().max().item()

    kept, other = ((dropout(torch.ones(n, places)) != 0).double() for _ in range(2))
    plain = (torch.nn.functional.dropout(torch.ones(n, places), 0.5) != 0).double()
    assert largest(kept) < 1.2 * largest(plain)
    assert largest(kept.T[:n]) < 1.2 * largest(plain.T[:n])
    assert abs(torch.corrcoef(torch.stack([kept.flatten(), other.flatten()]))[0, 1]) < 5 / (n * places) ** 0.5


def test_gradients_and_types() -> None:
    x = torch.ones(4, 8, dtype=torch.bfloat16, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, x.grad)
    assert set(y.detach().unique().tolist()) == {0.0, 2.0}
