"""A generator with other matrices, for sampling alone: `lighter` has smaller ones, `packed` those in oneDNN's order.

A token reads every weight once. At few rows the bytes of the weights are the time of a step; at more, how fast a
matrix product of few rows is, and oneDNN is faster with weights that it laid out itself.
"""

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from gear.generator.generator import Generator
from gear.generator.layers import Rotary

Precision = Literal["float32", "bfloat16", "int8"]
LOADED = 16  # numbers that torch's int8 product for a CPU reads at once
ROWS = 32  # the layout that is asked for; on a CPU it is also the fastest measured at 1, 4, 8 and 16
ONCE = ("cls_embedding", "projectors")  # modules of the generator that no further token reads


class PackedLinear(nn.Module):
    """A linear layer of the CPU, in float32 or bfloat16. Its bits differ from `nn.Linear`'s by rounding alone."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.laid_out = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), ROWS)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        return torch.ops.mkldnn._linear_pointwise(x, self.laid_out, None, "none", [], "")


class Int8Linear(nn.Module):
    """A linear layer of int8 weights with a bfloat16 scale for each output: x W^T * scale, W in -127 .. 127.

    The largest weight of an output is 127 steps, so that no weight is off by more than about half a step. Input and
    output are bfloat16. On a CPU without a copy in bfloat16, which pays at one row or two; on a GPU with one, which
    saves memory and not time, and has not run on one.
    """

    steps: Int8[Tensor, "O D"]  # not `weight`, which others multiply by
    scale: Float[Tensor, "O"]

    def __init__(self, linear: nn.Linear):
        super().__init__()
        w = linear.weight.detach().float()
        scale = (w.abs().amax(1) / 127).clamp(min=1e-12).bfloat16()
        self.register_buffer("scale", scale)
        self.register_buffer("steps", (w / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8))

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        if x.device.type == "cpu":
            rows = torch.ops.aten._weight_int8pack_mm(x.flatten(0, -2), self.steps, self.scale)
            return rows.unflatten(0, x.shape[:-1])
        return F.linear(x, self.steps.to(x.dtype)) * self.scale


def lighter(generator: Generator, precision: Precision) -> Generator:
    """For `generate`, in evaluation mode: itself at float32; else a copy in bfloat16, at int8 with the matrices of the
    blocks and of the head in int8 (`Int8Linear`). RMSNorm and rotation are computed in float32, logits given in it;
    the cache is bfloat16. It shares nothing with `generator`, and cannot be trained. Raises ValueError where torch has
    no int8 product for a CPU.
    """
    if precision == "float32":
        return generator
    on = generator.embedding.device.type
    if precision == "int8" and on == "cpu" and not hasattr(torch.ops.aten, "_weight_int8pack_mm"):
        raise ValueError(f"torch {torch.__version__} has no int8 product for a CPU: give --precision bfloat16.")
    return _copied(generator, _half, _in_int8 if precision == "int8" else None).eval()


def _half(t: Tensor) -> Tensor:
    return t.detach().to(torch.bfloat16, copy=True) if t.is_floating_point() else t


def _in_int8(linear: nn.Linear) -> nn.Module:
    """In bfloat16 where a row is no multiple of `LOADED`: the product would read beyond its end."""
    if linear.in_features % LOADED:
        return _copied(linear, _half, None)
    return Int8Linear(linear)


def packed(generator: Generator) -> Generator:
    """Itself on a GPU, under autocast and in float64; else a copy, which shares all but the matrices of the blocks and
    of the head: these it has twice while it lives. Packing takes 0.2 s for LlamaGen-B, which a few tokens pay for.
    """
    dtype, cpu = generator.embedding.dtype, generator.embedding.device.type == "cpu"
    if not cpu or not torch.backends.mkldnn.is_available() or torch.is_autocast_enabled("cpu"):
        return generator
    asked = ["_reorder_linear_weight", "_linear_pointwise"] + ["_is_mkldnn_bf16_supported"] * (dtype == torch.bfloat16)
    if dtype not in (torch.float32, torch.bfloat16) or not all(hasattr(torch.ops.mkldnn, name) for name in asked):
        return generator  # torch keeps these operators to itself: another version may have others
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return generator
    return _copied(generator, lambda t: t, PackedLinear)


def _copied(
    module: nn.Module, number: Callable[[Tensor], Tensor], matrix: Callable[[nn.Linear], nn.Module] | None
) -> Any:
    """A copy whose parameters and buffers are what `number` makes of them, and its linear layers what `matrix` does;
    those of the condition and the projectors, which no token reads, stay linear. Rotary tables stay."""
    if isinstance(module, nn.Linear) and matrix is not None:
        return matrix(module)
    twin: Any = copy.copy(module)
    if not isinstance(module, Rotary):
        parameters = {name: None if p is None else number(p) for name, p in module._parameters.items()}
        twin._parameters = {
            name: p if p is None or isinstance(p, nn.Parameter) else nn.Parameter(p, requires_grad=False)
            for name, p in parameters.items()
        }
        twin._buffers = {name: None if b is None else number(b) for name, b in module._buffers.items()}
    twin._modules = {
        name: None if child is None else _copied(child, number, None if name in ONCE else matrix)
        for name, child in module._modules.items()
    }
    return twin
