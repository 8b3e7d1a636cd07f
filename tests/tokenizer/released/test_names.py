"""The real families: which names their public files have, and that a name of ours leads to one of theirs and back."""

import pytest
import torch

from gear.config import FAMILIES
from gear.store.strict import clean
from gear.tokenizer.released.names import dotless, slots


@pytest.mark.parametrize(
    ("family", "parameters", "tensors"),
    [("VQ-16", 71_883_403, 343), ("VQ-8", 70_109_835, 299), ("LFQ-16", 115_094_033, 339), ("IBQ-16", 110_982_019, 543)],
)
def test_sizes_are_the_released_ones(family: str, parameters: int, tensors: int) -> None:
    public = slots(FAMILIES[family])
    assert sum(slot.like.numel() for slot in public.values()) == parameters
    assert len(public) == tensors
    assert len({slot.name for slot in public.values()}) == tensors  # no two of ours in one of theirs
    assert len({dotless(name) for name in public}) == tensors  # nor do two become one in LitEma
    assert all(slot.like.dtype == torch.float32 for slot in public.values())
    assert all(clean(name) == name for name in public)


@pytest.mark.parametrize("family", ["VQ-16", "VQ-8", "LFQ-16"])
def test_only_ibq_is_renamed(family: str) -> None:
    assert all(name == slot.name for name, slot in slots(FAMILIES[family]).items())


def taming_names() -> set[str]:
    """The names in IBQ's public file, by the five levels of taming-transformers' networks, highest resolution first."""
    names = {f"{side}.{part}" for side in ("encoder", "decoder") for part in ("conv_in", "norm_out", "conv_out")}
    names |= {"quant_conv", "post_quant_conv"}
    blocks, attentions = set(), {"encoder.mid.attn_1", "decoder.mid.attn_1"}
    for side in ("encoder", "decoder"):
        blocks |= {f"{side}.mid.block_1", f"{side}.mid.block_2"}
    for level in range(5):
        blocks |= {f"encoder.down.{level}.block.{i}" for i in range(4)}
        blocks |= {f"decoder.up.{level}.block.{i}" for i in range(5)}
    attentions |= {f"encoder.down.4.attn.{i}" for i in range(4)} | {f"decoder.up.4.attn.{i}" for i in range(5)}
    names |= {f"encoder.down.{level}.downsample.conv" for level in range(4)}
    names |= {f"decoder.up.{level}.upsample.conv" for level in range(1, 5)}
    names |= {f"{block}.{part}" for block in blocks for part in ("norm1", "conv1", "norm2", "conv2")}
    names |= {f"{attention}.{part}" for attention in attentions for part in ("norm", "q", "k", "v", "proj_out")}
    wider = ("encoder.down.2", "encoder.down.4", "decoder.up.3", "decoder.up.1")  # 128, 128, 256, 256, 512
    names |= {f"{level}.block.0.nin_shortcut" for level in wider}
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")} | {"quantize.embedding.weight"}


def test_ibq_has_the_names_of_taming_transformers() -> None:
    assert slots(FAMILIES["IBQ-16"]).keys() == taming_names()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("encoder.down.3.block.1.norm2.bias", "encoder.conv_blocks.3.res.1.norm2.bias"),
        ("encoder.down.4.attn.3.proj_out.weight", "encoder.conv_blocks.4.attn.3.proj_out.weight"),
        ("encoder.down.0.downsample.conv.weight", "encoder.conv_blocks.0.downsample.conv.weight"),
        ("encoder.mid.block_1.conv1.weight", "encoder.mid.0.conv1.weight"),
        ("encoder.mid.attn_1.q.weight", "encoder.mid.1.q.weight"),
        ("encoder.mid.block_2.conv1.weight", "encoder.mid.2.conv1.weight"),
        ("decoder.up.4.block.0.conv1.weight", "decoder.conv_blocks.0.res.0.conv1.weight"),
        ("decoder.up.4.attn.4.v.bias", "decoder.conv_blocks.0.attn.4.v.bias"),
        ("decoder.up.4.upsample.conv.bias", "decoder.conv_blocks.0.upsample.conv.bias"),
        ("decoder.up.3.block.2.conv2.weight", "decoder.conv_blocks.1.res.2.conv2.weight"),
        ("decoder.up.0.block.4.norm1.weight", "decoder.conv_blocks.4.res.4.norm1.weight"),
        ("decoder.mid.attn_1.norm.weight", "decoder.mid.1.norm.weight"),
        ("quantize.embedding.weight", "quantize.embedding.weight"),
        ("post_quant_conv.bias", "post_quant_conv.bias"),
    ],
)
def test_each_part_of_ibq_has_its_counterpart(theirs: str, ours: str) -> None:
    assert slots(FAMILIES["IBQ-16"])[theirs].name == ours


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_leave_a_name(prefix: str) -> None:
    assert clean(prefix + "encoder.conv_in.weight") == "encoder.conv_in.weight"
    assert clean(f"encoder.{prefix}conv_in.weight") == "encoder.conv_in.weight"
