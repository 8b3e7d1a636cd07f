"""Tiny random checkpoints as LlamaGen's and GEAR's trainers leave them, and everything that may be wrong with one."""

import math
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from gear import config as cfg
from gear.config import SIZES
from gear.generator import Generator, released
from gear.generator.layers import Attention, Rotary
from gear.generator.released import ReleasedError, read, write
from gear.generator.released_names import Sizes

TINY = (2, 32)  # layers and width of the fixture, which has 2 heads


@pytest.fixture(autouse=True)
def known_size(monkeypatch):
    monkeypatch.setitem(released.HEADS, TINY, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c2i.pt"


@pytest.fixture
def state(tiny) -> dict[str, torch.Tensor]:
    return tiny(class_rotary="zero", target_dims={}).state_dict()


@pytest.fixture
def gear_file(tiny) -> dict:
    """What GEAR's trainer saves, with projectors for two targets."""
    live, mean = (tiny(target_dims={"a": 6, "b": 10}).state_dict() for _ in range(2))
    bank = {k.replace("projectors.a", "projs.0").replace("projectors.b", "projs.1"): v for k, v in live.items()}
    mean = {k: v + 1 for k, v in mean.items() if not k.startswith("projectors.")}
    return {
        "ar": {k: v for k, v in live.items() if not k.startswith("projectors.")},
        "ema": mean,
        "projectors": {k: v for k, v in bank.items() if k.startswith("projs.")},
        "vq": {"encoder.conv_in.weight": torch.zeros(1)},
        "vq_ema": {"encoder.conv_in.weight": torch.zeros(1)},
        "discriminator": {"main.0.weight": torch.zeros(1)},
        "opt_ar": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "args": {"enc_type": "dinov2-vit-b,jepa21-vit-l", "image_size": 256},
        "steps": 7,
    }


def same(got, want) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[k], v) for k, v in want.items())


def build(r: released.ReleasedGenerator) -> Generator:
    config = cfg.Generator(layers=r.layers, heads=r.heads, width=r.width, tap=1, class_rotary="zero")
    config = replace(config, projector=r.projector or config.projector)
    sizes = {"codebook_size": r.codebook_size, "classes": r.classes, "target_dims": r.target_dims}
    generator = Generator(config, grid=(3, 4), **sizes)
    generator.load_state_dict(r.tensors, strict=True)
    return generator.eval()


# ---------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s},
        lambda s: {"model": s, "optimizer": {"state": {}}, "steps": 1, "args": Namespace(gpt_model="GPT-B")},
        lambda s: {"module": s, "epoch": 3},
        lambda s: {"state_dict": s},
        lambda s: s,
        lambda s: {"model": s | {"freqs_cis": torch.zeros(13, 8, 2)}},
        lambda s: {"model": {f"_orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        lambda s: {"ema": s},
    ],
)
def test_llamagen_files(tiny, state, path, wrap):
    torch.save(wrap(state), path)
    r = read(path)
    assert (r.layers, r.heads, r.width, r.classes, r.codebook_size) == (2, 2, 32, 5, 20)
    assert (r.projector, r.target_dims, r.layout) == (None, {}, "llamagen")
    assert same(r.tensors, state)
    q, c = torch.randint(20, (2, 11)), torch.tensor([0, 4])
    assert torch.equal(build(r)(q, c).logits, tiny(class_rotary="zero", target_dims={})(q, c).logits)


def test_a_file_becomes_a_generator_in_one_call(tiny, gear_file, path):
    torch.save(gear_file, path)
    ours = Generator.from_released(path, grid=(3, 4))
    assert (ours.config.class_rotary, ours.grid, ours.training) == ("zero", (3, 4), False)
    tokens, labels = torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    again = build(read(path))
    assert torch.equal(ours(tokens, labels).logits, again(tokens, labels).logits)


def test_safetensors(state, tmp_path):
    safetensors.torch.save_file(state, tmp_path / "c2i.safetensors")
    assert same(read(tmp_path / "c2i.safetensors").tensors, state)


def test_half_precision_stays_as_it_is(state, path):
    torch.save({k: v.bfloat16() for k, v in state.items()}, path)
    assert {v.dtype for v in read(path).tensors.values()} == {torch.bfloat16}


def test_the_average_is_preferred_and_its_absence_is_told(state, path):
    mean = {k: v + 1 for k, v in state.items()}
    torch.save({"model": state, "ema": mean}, path)
    for averaged, want in ((True, mean), (False, state)):
        r = read(path, averaged=averaged)
        assert r.averaged is averaged
        assert same(r.tensors, want)
    torch.save({"model": state}, path)
    assert not read(path, averaged=True).averaged
    torch.save({"ema": state}, path)
    assert read(path, averaged=False).averaged


@pytest.mark.parametrize("averaged", [True, False])
def test_gear_files(gear_file, path, averaged):
    torch.save(gear_file, path)
    r = read(path, averaged=averaged)
    assert (r.projector, r.target_dims, r.layout) == (16, {"dinov2-b": 6, "vjepa2.1-l": 10}, "gear")
    generator = build(r)
    weights = gear_file["ema" if averaged else "ar"]
    assert torch.equal(generator.state_dict()["layers.1.attention.wo.weight"], weights["layers.1.attention.wo.weight"])
    states = generator(torch.randint(20, (2, 11)), torch.tensor([0, 4]))
    for i, name in enumerate(("dinov2-b", "vjepa2.1-l")):
        bank, x = gear_file["projectors"], states.tap
        for j in (0, 2, 4):
            x = x @ bank[f"projs.{i}.{j}.weight"].T + bank[f"projs.{i}.{j}.bias"]
            x = x * torch.sigmoid(x) if j < 4 else x
        torch.testing.assert_close(states.projected[name], x, atol=1e-5, rtol=1e-5)


def test_gear_stage_2_without_alignment_or_tokenizer(gear_file, path):
    torch.save({k: gear_file[k] for k in ("ar", "ema", "args", "steps")}, path)
    r = read(path)
    assert (r.target_dims, r.projector, r.averaged, r.layout) == ({}, None, True, "gear")


@pytest.mark.parametrize(
    ("args", "targets", "want"),
    [
        ({"enc_type": "dinov2_reg-vit-s,dinov3-vit-b"}, None, ["dinov2-s-reg", "dinov3-b"]),
        ({"enc_type": "siglip2-vit-so400m,clip-vit-L", "image_size": 512}, None, ["siglip2-so400m-512", "clip-l"]),
        ({"enc_type": "mocov3-vit-b,dinov2-vit-b"}, None, ["0", "1"]),
        ({}, None, ["0", "1"]),
        (None, ("x", "y.z"), ["x", "y.z"]),
    ],
)
def test_projectors_are_named_after_their_targets(gear_file, path, args, targets, want):
    torch.save(gear_file | {"args": args}, path)
    r = read(path, targets=targets)
    assert list(r.target_dims) == want
    assert f"projectors.{want[1].replace('.', '_')}.4.bias" in r.tensors
    build(r)


def test_names_for_another_number_of_projectors_are_refused(gear_file, path):
    torch.save(gear_file, path)
    with pytest.raises(ReleasedError, match="has 2 projectors, for as many targets, not for dinov2-b"):
        read(path, targets=("dinov2-b",))


# ---------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("S", 34_210_560),
        ("B", 110_888_448),
        ("L", 342_910_976),
        ("XL", 774_699_520),
        ("XXL", 1_410_972_672),
        ("XXXL", 3_893_027_840),
    ],
)
def test_every_size_has_the_released_tensors(size, count):
    with torch.device("meta"):
        generator = Generator(SIZES[size], codebook_size=16384, classes=1000, grid=(16, 16))
    own = {name: tuple(v.shape) for name, v in generator.state_dict().items()}
    config = SIZES[size]
    assert Sizes(config.layers, config.width, 16384, 1000).shapes() == own
    assert len(own) == 4 + 7 * config.layers
    assert sum(math.prod(shape) for shape in own.values()) == count
    assert released.HEADS[config.layers, config.width] == config.heads


def test_heads_are_known_or_asked_for(state, path, monkeypatch):
    assert released.HEADS[24, 3200] == 32  # LlamaGen-3B
    monkeypatch.delitem(released.HEADS, TINY)
    torch.save(state, path)
    with pytest.raises(ReleasedError, match=r"has 2 blocks of width 32; .* say how many heads"):
        read(path)
    assert read(path, heads=4).heads == 4


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"layers.0.attention.wo.weight": None}, "it lacks layers.0.attention.wo.weight"),
        (
            {f"layers.0.{k}": None for k in ("attention_norm.weight", "ffn_norm.weight")},
            "lacks .*_norm.weight; it lacks .*ffn",
        ),
        ({"cls_embedding.embedding_table.weight": None}, "it lacks cls_embedding.embedding_table.weight"),
        ({"tok_embeddings.weight": None}, "holds no LlamaGen generator: tok_embeddings.weight"),
        ({"tok_embeddings.weight": torch.zeros(3)}, "holds no LlamaGen generator: tok_embeddings.weight"),
        ({"layers.0.attention.q_norm.weight": torch.ones(2)}, "layers.0.attention.q_norm.weight has no place here"),
        (
            {"layers.0.attention.kv_cache.k_cache": torch.ones(2)},
            "no whole LlamaGen generator: layers.0.attention.kv_cache.k_cache has no place here",
        ),
        ({"output.weight": torch.zeros(21, 32)}, r"its output.weight is \(21, 32\) and should be \(20, 32\)"),
        ({"norm.weight": torch.ones(())}, r"its norm.weight is \(\) and should be \(32,\)"),
        ({"norm.weight": torch.full((32,), math.nan)}, "norm.weight has NaN or infinity"),
        ({"norm.weight": torch.full((32,), math.inf)}, "norm.weight has NaN or infinity"),
        ({"norm.weight": torch.ones(32, dtype=torch.int32)}, "its norm.weight is of torch.int32 and should be of"),
        ({"module.norm.weight": torch.ones(32)}, "has norm.weight twice"),
        ({"norm.weight": 1.0}, "norm.weight should be tensors"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(state, path, change, what):
    state |= change
    torch.save({"model": {k: v for k, v in state.items() if v is not None}}, path)
    with pytest.raises(ReleasedError, match=what):
        read(path)


def test_a_missing_last_block_is_no_smaller_model(state, path):
    torch.save({k: v for k, v in state.items() if not k.startswith("layers.1.")}, path)
    with pytest.raises(ReleasedError, match=r"has 1 blocks of width 32; .* it is not whole"):
        read(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"projs.0.2.bias": None}, r"lacks projectors.dinov2-b.2.bias"),
        ({"projs.1.4.weight": None}, r"lacks projectors.vjepa2_1-l.4.weight"),
        ({"projs.0.6.bias": torch.ones(2)}, "projectors.dinov2-b.6.bias has no place here"),
        ({"projs.1.0.weight": torch.ones(16, 33)}, r"is \(16, 33\) and should be \(16, 32\)"),
        ({"head.bias": torch.ones(2)}, "projectors that are not called projs.<number>: head.bias"),
        ({"projs.0.2.bias": torch.full((16,), math.nan)}, "projectors.dinov2-b.2.bias has NaN"),
    ],
)
def test_damaged_projectors_are_refused(gear_file, path, change, what):
    gear_file["projectors"] = {k: v for k, v in (gear_file["projectors"] | change).items() if v is not None}
    torch.save(gear_file, path)
    with pytest.raises(ReleasedError, match=what):
        read(path)


TOKENIZER = {"encoder.conv_in.weight": torch.zeros(1), "quantize.embedding.weight": torch.zeros(2, 2)}
CAPTIONS = {"cls_embedding.cap_proj.fc1.weight": torch.zeros(2, 2), "cls_embedding.uncond_embedding": torch.zeros(1)}


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        ({"model": TOKENIZER}, "holds an image tokenizer"),
        ({"state_dict": TOKENIZER}, "holds an image tokenizer"),
        ({"vq": TOKENIZER, "vq_ema": TOKENIZER, "discriminator": {}}, "holds an image tokenizer"),
        ({"model": {f"_orig_mod.{k}": v for k, v in TOKENIZER.items()}}, "holds an image tokenizer"),
        ({"model": CAPTIONS}, "holds LlamaGen's own text-to-image generator"),
        ({"model": {"blocks.0.w": torch.zeros(1)}}, "holds no LlamaGen generator: .* is not among blocks.0.w"),
        ({"model": {}}, "holds no LlamaGen generator"),
    ],
)
def test_another_model_is_refused_by_what_it_is(path, contents, what):
    torch.save(contents, path)
    with pytest.raises(ReleasedError, match=what):
        read(path)


class Runs:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_what_cannot_be_read_safely_is_refused_in_the_same_way(state, path, tmp_path):
    torch.save({"model": state, "args": Runs(tmp_path / "ran")}, path)
    with pytest.raises(ReleasedError, match=r"asks for posix\.mkdir"):
        read(path)
    assert not (tmp_path / "ran").exists()
    torch.save({"model": state}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ReleasedError, match="cut short"):
        read(path)
    with pytest.raises(ReleasedError, match="There is no file at"):
        read(tmp_path / "missing.pt")


# ---------------------------------------------------------------------------------------------------- writing


def test_llamagen_is_written_without_projectors(tiny, state, path):
    with_projector = tiny(class_rotary="zero").state_dict()
    write(path, with_projector)
    stored = torch.load(path, weights_only=True)
    assert stored.keys() == {"model"}
    assert same(stored["model"], {k: v for k, v in with_projector.items() if k in state})
    assert same(read(path).tensors, stored["model"])


def test_gear_is_written_with_numbered_projectors(tiny, path):
    ours = tiny(target_dims={"vjepa2.1-b": 6, "dinov2-b": 10}).state_dict()
    write(path, ours, "gear")
    stored = torch.load(path, weights_only=True)
    assert stored.keys() == {"ar", "projectors"}
    assert torch.equal(stored["projectors"]["projs.1.4.bias"], ours["projectors.dinov2-b.4.bias"])
    assert same(read(path, targets=("vjepa2.1-b", "dinov2-b")).tensors, ours)


def test_writing_what_was_read_gives_the_same_file(gear_file, path, tmp_path):
    torch.save(gear_file, path)
    r = read(path, averaged=False)
    write(tmp_path / "again.pt", r.tensors, r.layout)
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert same(again["ar"], gear_file["ar"])
    assert same(again["projectors"], gear_file["projectors"])
    assert (tmp_path / "again.pt").stat().st_size < 1.5 * sum(v.nbytes for v in r.tensors.values())


def test_only_a_whole_generator_is_written(state, path):
    path.write_bytes(b"before")
    del state["norm.weight"]
    with pytest.raises(
        ReleasedError, match=r"the state to be written is no whole LlamaGen generator: it lacks norm\.weight"
    ):
        write(path, state)
    assert path.read_bytes() == b"before"


def test_an_interrupted_write_leaves_what_was_there(state, path, monkeypatch):
    path.write_bytes(b"before")
    monkeypatch.setattr(torch, "save", lambda _, file: (file.write(b"half"), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        write(path, state)
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


# ------------------------------------------------------------------------------------- the class token's rotation


@pytest.mark.parametrize("kind", ["zero", "identity"])
def test_attention_to_the_class_is_blind_when_released_and_sees_it_when_not(kind):
    """Values that are 1 at the class row and 0 elsewhere make the output the attention to the class row."""
    torch.manual_seed(0)
    heads, C, n = 2, 8, 7
    D = heads * C
    attention = Attention(D, heads, dropout=0.0).double()
    mark = torch.zeros(D, D, dtype=torch.float64)
    mark[::C, 0] = 1  # v: the first channel of every head is x's first
    q_k = torch.randn(2 * D, D, dtype=torch.float64) / 4
    q_k[:, 0] = 0
    with torch.no_grad():
        attention.wqkv.weight.copy_(torch.cat([q_k, mark]))
        attention.wo.weight.copy_(torch.eye(D))
    x = torch.randn(2, n, D, dtype=torch.float64)  # two images that differ in their class only
    x[1, 1:] = x[0, 1:]
    x[:, :, 0] = torch.tensor([1.0] + [0.0] * (n - 1))
    rotary = Rotary((3, 3), C, kind).table.double()[:n]
    with torch.no_grad():
        weight = attention(x, rotary)[..., ::C]  # image, row, head
    for image in range(2):
        for head in range(heads):
            s = slice(head * C, (head + 1) * C)
            q, k = (torch.view_as_complex((x[image] @ w[s].T).view(n, -1, 2)) for w in q_k.split(D))
            turn = torch.view_as_complex(rotary.contiguous())
            assert (turn[0] == (0 if kind == "zero" else 1)).all()
            for row in range(n):
                logits = [((q[row] * turn[row]) * (k[j] * turn[j]).conj()).real.sum() / C**0.5 for j in range(row + 1)]
                if kind == "zero":
                    assert logits[0] == 0
                want = logits[0].exp() / sum(logit.exp() for logit in logits)
                torch.testing.assert_close(weight[image, row, head], want, rtol=1e-12, atol=0)
    differ = (weight[0] - weight[1]).abs()[1:]
    assert (differ < 1e-15).all() if kind == "zero" else (differ > 1e-4).all()
