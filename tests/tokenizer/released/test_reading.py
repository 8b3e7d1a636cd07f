"""Every layout of every family comes out under our names, bit for bit; what is not exactly one of them does not."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gear.config import Config
from gear.tokenizer.released import NoTokenizer, ReleasedError, is_released, read
from gear.train import state

FAMILIES = ["VQ-16", "VQ-8", "LFQ-16", "IBQ-16"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer.pt"


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize(("family", "used"), [("VQ-16", True), ("VQ-16", False), ("VQ-8", True)])
def test_llamagen(small, path: Path, family: str, used: bool) -> None:
    usage = {"quantize.codebook_used": torch.zeros(65536)} if used else {}
    torch.save({"model": OrderedDict(small.public(family) | usage)}, path)
    released = read(path, families=small.families)
    assert (released.family, released.layout, released.averaged) == (family, "llamagen", False)
    assert equal(released.tokenizer, small.tokenizer(family))
    assert released.critic is None


def test_a_checkpoint_of_llamagens_trainer(small, path: Path) -> None:
    model, ema = small.public("VQ-16"), small.public("VQ-16", seed=1)
    rest = {"optimizer": {"state": {}, "param_groups": []}, "steps": 7, "args": Namespace(vq_model="VQ-16", ema=True)}
    torch.save({"model": model, "ema": ema, "discriminator": small.critic(), **rest}, path)
    released = read(path, families=small.families)
    assert released.averaged
    assert equal(released.tokenizer, ema)
    assert equal(released.critic or {}, small.critic())
    assert equal(read(path, families=small.families, averaged=False).tokenizer, model)


@pytest.mark.parametrize(("family", "nested"), [("LFQ-16", True), ("LFQ-16", False), ("IBQ-16", True)])
def test_lightning(small, path: Path, family: str, nested: bool) -> None:
    checkpoint = small.lightning(family)
    torch.save(checkpoint if nested else checkpoint["state_dict"], path)
    released = read(path, families=small.families)
    assert (released.family, released.layout, released.averaged) == (family, "lightning", True)
    assert equal(released.tokenizer, small.tokenizer(family, seed=1))
    assert equal(released.critic or {}, small.critic())
    live = read(path, families=small.families, averaged=False)
    assert not live.averaged
    assert equal(live.tokenizer, small.tokenizer(family))


def test_lightning_without_an_average(small, path: Path) -> None:
    checkpoint = small.lightning("IBQ-16")
    checkpoint["state_dict"] = {k: t for k, t in checkpoint["state_dict"].items() if not k.startswith("model_ema.")}
    torch.save(checkpoint, path)
    released = read(path, families=small.families)
    assert (released.layout, released.averaged) == ("lightning", False)
    assert equal(released.tokenizer, small.tokenizer("IBQ-16"))


@pytest.mark.parametrize(
    ("family", "keys"),
    [(family, "vq vq_ema discriminator opt_vq sched_vq steps args") for family in FAMILIES]
    + [("IBQ-16", keys) for keys in ("vq", "vq_ema", "vq discriminator")],
)
def test_gear(small, path: Path, family: str, keys: str) -> None:
    whole = {
        "vq": small.public(family),
        "vq_ema": small.public(family, seed=1),
        "discriminator": small.critic(),
        "opt_vq": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "sched_vq": {"last_epoch": 3},
        "steps": 400_000,
        "args": Namespace(vq_model=family, layers=[1, 2]),
    }
    torch.save({key: whole[key] for key in keys.split()}, path)
    released = read(path, families=small.families)
    averaged = "vq_ema" in keys
    assert (released.family, released.layout, released.averaged) == (family, "gear", averaged)
    assert equal(released.tokenizer, small.tokenizer(family, seed=int(averaged)))
    assert (released.critic is not None) == ("discriminator" in keys)
    if "vq" in keys.split():
        assert equal(read(path, families=small.families, averaged=False).tokenizer, small.tokenizer(family))
    else:
        with pytest.raises(ReleasedError, match=r"only averaged weights"):
            read(path, families=small.families, averaged=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_bare(small, path: Path, family: str) -> None:
    torch.save(small.public(family), path)
    released = read(path, families=small.families)
    assert (released.family, released.layout, released.averaged) == (family, "bare", False)
    assert equal(released.tokenizer, small.tokenizer(family))


@pytest.mark.parametrize(
    ("part", "prefix"),
    [("vq", "_orig_mod."), ("vq_ema", "module._orig_mod."), ("model", "_orig_mod.module."), (None, "module.")],
)
def test_wrapped(small, path: Path, part: str | None, prefix: str) -> None:
    wrapped = {prefix + name: t for name, t in small.public("IBQ-16").items()}
    torch.save({part: wrapped} if part else wrapped, path)
    assert equal(read(path, families=small.families).tokenizer, small.tokenizer("IBQ-16"))


@pytest.mark.parametrize("prefix", ["", "model.", "vq.", "state_dict.", "module.", "vq.module."])
def test_safetensors(small, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "named_anything.bin"
    critic = {f"discriminator.{name}": t for name, t in small.critic().items()} if prefix == "vq." else {}
    save_file({prefix + name: t for name, t in small.public("IBQ-16").items()} | critic, path)
    released = read(path, families=small.families)
    assert equal(released.tokenizer, small.tokenizer("IBQ-16"))
    assert (released.critic is not None) == (prefix == "vq.")


def test_lightning_as_safetensors(small, tmp_path: Path) -> None:
    save_file(small.lightning("LFQ-16")["state_dict"], tmp_path / "x.safetensors")
    released = read(tmp_path / "x.safetensors", families=small.families)
    assert (released.layout, released.averaged) == ("lightning", True)
    assert equal(released.tokenizer, small.tokenizer("LFQ-16", seed=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_come_out_as_float32(small, path: Path, dtype: torch.dtype) -> None:
    stored = {name: t.to(dtype) for name, t in small.public("VQ-16").items()}
    torch.save({"model": stored, "discriminator": small.critic()}, path)
    released = read(path, families=small.families)
    assert equal(released.tokenizer, {name: t.float() for name, t in stored.items()})
    assert released.critic is not None
    assert released.critic["main.3.num_batches_tracked"].dtype == torch.int64
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in released.tokenizer.values())


def test_nothing_stays_in_the_file(small, path: Path) -> None:
    """While it is read it is mapped into memory; afterwards it may change."""
    torch.save({"model": {name: torch.nn.Parameter(t) for name, t in small.public("VQ-16").items()}}, path)
    released = read(path, families=small.families)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert equal(released.tokenizer, small.tokenizer("VQ-16"))
    assert not any(t.requires_grad for t in released.tokenizer.values())


def test_before_torch_1_6(small, path: Path) -> None:
    torch.save({"model": small.public("VQ-16")}, path, _use_new_zipfile_serialization=False)
    assert equal(read(path, families=small.families).tokenizer, small.tokenizer("VQ-16"))


# ------------------------------------------------------------------------------------------------ strictness


NAME = "encoder.conv_in.weight"
EDITS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "lacking": (
        lambda s: s.pop(NAME),
        r"resembles a VQ-16 tokenizer most, and cannot be one: it lacks encoder\.conv_in",
    ),
    "left over": (lambda s: s.update(extra=torch.zeros(1)), r"extra has no place here"),
    "shape": (lambda s: s.update({NAME: torch.zeros(4, 3, 1, 1)}), r"is \(4, 3, 1, 1\) and should be \(4, 3, 3, 3\)"),
    "size": (
        lambda s: s.update({"quantize.embedding.weight": torch.zeros(9, 3)}),
        r"is \(9, 3\) and should be \(8, 3\)",
    ),
    "nan": (lambda s: s[NAME].view(-1)[5].fill_(torch.nan), r"encoder\.conv_in\.weight has NaN or infinity"),
    "inf": (lambda s: s[NAME].view(-1)[5].fill_(torch.inf), r"encoder\.conv_in\.weight has NaN or infinity"),
    "kind": (lambda s: s.update({NAME: s[NAME].long()}), r"is of torch\.int64 and should be of torch\.float32"),
    "sparse": (lambda s: s.update({NAME: s[NAME].to_sparse()}), r"is no plain tensor"),
    "meta": (lambda s: s.update({NAME: s[NAME].to("meta")}), r"is no plain tensor"),
    "many": (lambda s: [s.pop(name) for name in list(s)[:8]], r"; it lacks \S+, and 5 more\.$"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_any_difference_is_refused(small, path: Path, edit: str) -> None:
    change, said = EDITS[edit]
    tensors = small.public("VQ-16")
    change(tensors)
    torch.save({"model": tensors}, path)
    with pytest.raises(ReleasedError, match=said):
        read(path, families=small.families)


def test_an_average_must_be_whole(small, path: Path) -> None:
    checkpoint = small.lightning("IBQ-16")
    del checkpoint["state_dict"]["model_ema.decoderup2attn0qweight"]
    torch.save(checkpoint, path)
    with pytest.raises(ReleasedError, match="it lacks decoderup2attn0qweight"):
        read(path, families=small.families)
    assert read(path, families=small.families, averaged=False).family == "IBQ-16"


def test_the_critic_is_read_as_strictly(small, path: Path) -> None:
    def saying(critic: dict[str, Tensor], said: str) -> None:
        torch.save({"vq": small.public("VQ-16"), "discriminator": critic}, path)
        with pytest.raises(ReleasedError, match=r"critic \(discriminator\) that is no PatchGAN: .*" + said):
            read(path, families=small.families)

    whole = small.critic()
    saying({k: t for k, t in whole.items() if k != "main.3.running_var"}, "it lacks main.3.running_var")
    saying(whole | {"main.0.bias": torch.tensor([0.0, torch.nan])}, "main.0.bias has NaN or infinity")
    saying({"blocks.0.conv1.weight": torch.zeros(2, 3, 1, 1)}, "blocks.0.conv1.weight has no place")
    saying(whole | {"main.99.weight": torch.zeros(1)}, "main.99.weight has no place")
    saying(whole | {"main.0.weight": torch.zeros(())}, r"main.0.weight is \(\) and should be \(2, 3, 4, 4\)")


def test_another_network_is_refused(small, path: Path) -> None:
    torch.save({"model": {"tok_embeddings.weight": torch.zeros(3, 2), "norm.weight": torch.zeros(2)}}, path)
    with pytest.raises(
        ReleasedError, match=r"no known tokenizer: of its 2 tensors \(tok_embeddings.weight, norm.weight"
    ):
        read(path, families=small.families)
    with pytest.raises(NoTokenizer, match=r"Known are VQ-16 \(343 tensors\), VQ-8 \(299 tensors\), LFQ-16 \(339"):
        read(path)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"opt_vq": {"state": {0: torch.zeros(1)}}, "steps": 3}, r"holds opt_vq, steps, and no weights of a tokenizer"),
        (
            {"discriminator": {"main.0.bias": torch.zeros(1)}},
            r"holds discriminator, and no tokenizer: one of VQ-16, VQ-8",
        ),
        ({}, r"holds nothing, and no weights"),
    ],
)
def test_a_file_without_a_tokenizer_is_refused(path: Path, held: dict[str, Any], said: str) -> None:
    torch.save(held, path)
    with pytest.raises(NoTokenizer, match=said):
        read(path)


def test_a_name_that_comes_twice_is_refused(small, path: Path) -> None:
    torch.save({"vq": small.public("VQ-16") | {"module.quant_conv.bias": torch.zeros(3)}}, path)
    with pytest.raises(ReleasedError, match=r"holds quant_conv\.bias twice"):
        read(path, families=small.families)


def test_a_list_is_refused(path: Path) -> None:
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ReleasedError, match="holds a list, where a dict of tensors is expected"):
        read(path)


# ------------------------------------------------------------------------------------------------ is_released


def test_is_released(small, tmp_path: Path) -> None:
    torch.save({"model": small.public("VQ-16")}, tmp_path / "public.pt")
    save_file(small.public("VQ-16"), tmp_path / "public.safetensors", {"format": "pt"})
    save_file({"tokenizer.x": torch.zeros(1)}, tmp_path / "ours.safetensors", state.header(3, Config(), ["cat"]))
    assert is_released(tmp_path / "public.pt")
    assert is_released(tmp_path / "public.safetensors")
    assert not is_released(tmp_path / "ours.safetensors")
    assert not is_released(tmp_path)
    assert not is_released(tmp_path / "absent.pt")
    with pytest.raises(ReleasedError, match="was written by gear itself"):
        read(tmp_path / "ours.safetensors")
