"""Usage of a codebook: distributions whose values are known, and a twin with the whole N x K matrix."""

import math

import pytest
import torch

from gear.assignment import Assignment, BinaryAssignment
from gear.probe.codebook import natural_mass, soft_mass
from gear.usage import usage


def twin(mass: list[float]) -> dict[str, float]:
    p = sorted((m / sum(mass) for m in mass), reverse=True)
    H = sum(-x * math.log(x) for x in p if x > 0)
    tops = {f"top{k}": sum(p[:k]) for k in (1, 10, 100, 1000)}
    return tops | {"entropy": H, "effective_size": math.exp(H), "dead": sum(x == 0 for x in p) / len(p)}


def test_usage_equals_its_twin():
    mass = torch.rand(3000) ** 4
    mass[::7] = 0
    assert usage(mass).numbers() == pytest.approx(twin(mass.tolist()), rel=1e-10)


def test_known_distributions():
    even = usage(torch.full((4096,), 3.0))
    assert even.numbers() == pytest.approx(
        {
            "top1": 1 / 4096,
            "top10": 10 / 4096,
            "top100": 100 / 4096,
            "top1000": 1000 / 4096,
            "entropy": math.log(4096),
            "effective_size": 4096,
            "dead": 0,
        }
    )
    one = usage(torch.eye(64)[3])
    assert (one.top1, one.top1000, one.entropy, one.effective_size, one.dead) == (1, 1, 0, 1, 63 / 64)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_masses_equal_their_twins(tau):
    z, c = torch.randn(3, 5, 4), torch.randn(20, 4)
    A = Assignment(z, c, 2.0, -c.square().sum(-1))
    natural, soft = [0.0] * 20, [0.0] * 20
    for row in z.flatten(0, 1).double():
        a = [-sum((x - y) ** 2 for x, y in zip(row.tolist(), code, strict=True)) for code in c.double().tolist()]
        natural[a.index(max(a))] += 1
        weights = [math.exp((v - max(a)) / tau) for v in a]
        soft = [s + w / sum(weights) for s, w in zip(soft, weights, strict=True)]
    assert natural_mass(A).tolist() == natural
    assert soft_mass(A, tau).tolist() == pytest.approx(soft, abs=1e-5)
    assert float(soft_mass(A, tau).sum()) == pytest.approx(15, rel=1e-6)


def test_look_up_free_quantization():
    z = torch.randn(2, 6, 3)
    patterns = torch.tensor([[1.0 if k >> j & 1 else -1.0 for j in range(3)] for k in range(8)])
    binary, dense = BinaryAssignment(z, patterns, 2.0), Assignment(z, patterns, 2.0)
    torch.testing.assert_close(soft_mass(binary, 0.5), soft_mass(dense, 0.5))
    torch.testing.assert_close(natural_mass(binary), natural_mass(dense))


def test_a_low_temperature_is_natural():
    A = Assignment(torch.randn(50, 4), torch.randn(8, 4), 1.0)
    torch.testing.assert_close(soft_mass(A, 1e-6), natural_mass(A))
    hot = usage(soft_mass(A, 1e6))
    assert hot.entropy.item() == pytest.approx(math.log(8), abs=1e-6)
