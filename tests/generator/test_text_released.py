"""Public text-to-image generators of GEAR's trainer: read strictly, and computing what a slow twin computes."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gear import exporting, run, sources
from gear.config import Config, Text
from gear.config_check import check
from gear.generator import Generator, released
from gear.generator.layers import DualBlock, hidden_width
from gear.generator.released import ReleasedError, read, write
from gear.prompts import Prompts

T, C, K = 7, 10, 20
SIZES: dict[str, Any] = {"layers": 3, "dual": 2, "width": 32, "heads": 2, "K": K, "side": 4, "T": T, "C": C}
Slow = Callable[..., Any]


@pytest.fixture(autouse=True)
def known_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(released.HEADS, (3, 32), 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t2i.pt"


@pytest.fixture
def twin(released_twin: type[nn.Module]) -> Slow:
    """Of `SIZES` but for keyword arguments, with weights of unit gain."""

    def make(**changes: int) -> nn.Module:
        torch.manual_seed(0)
        net = released_twin(**SIZES | {"hidden": hidden_width(32)} | changes)
        for p in net.parameters():
            torch.nn.init.normal_(p, mean=float(p.ndim == 1), std=p.shape[-1] ** -0.5)
        return net

    return make


def saved(path: Path, net: nn.Module, **others: Any) -> Path:
    """As GEAR's trainer saves it, without projectors."""
    torch.save({"ar": net.state_dict(), "steps": 7, "args": {"image_size": 256}} | others, path)
    return path


def built(path: Path, tokens: int = T) -> Generator:
    """From the file, with fewer rows of text than 300."""
    found = read(path)
    text = found.architecture.text
    assert text is not None
    architecture = replace(found.architecture, tap=1, text=replace(text, tokens=tokens))
    net = Generator(
        architecture,
        codebook_size=found.codebook_size,
        classes=found.classes,
        grid=(4, 4),
        target_dims=found.target_dims,
        text_width=found.text_width,
    )
    net.load_state_dict(found.tensors, strict=True)
    return net.eval()


def prompts(lengths: list[int], rubbish: bool) -> Prompts:
    """Captions of these lengths, padded behind, with zeros or with `rubbish`."""
    states = torch.randn(len(lengths), T, C, dtype=torch.float64)
    valid = torch.arange(T) < torch.tensor(lengths)[:, None]
    return Prompts(states if rubbish else states * valid[..., None], valid)


# ---------------------------------------------------------------------------------------------------- the forward pass


@pytest.mark.parametrize("rubbish", [False, True], ids=["zeros", "rubbish"])
@pytest.mark.parametrize("tokens", [0, 1, 15])
def test_every_row_equals_the_twins(twin: Slow, path: Path, tokens: int, rubbish: bool) -> None:
    """For every length a caption may have, and for none at all; the first token is read off the last row of padding,
    whose own state counts."""
    slow = twin().double()
    ours = built(saved(path, slow)).double()
    given, q = prompts([*range(T + 1)], rubbish), torch.randint(K, (T + 1, tokens))
    with torch.no_grad():
        want, states = slow(q, given.states, given.valid), ours(q, given)
    assert states.logits is not None
    assert states.logits.shape == want.shape == (T + 1, tokens + 1, K)
    torch.testing.assert_close(states.logits.double(), want, atol=1e-10, rtol=1e-10)


def test_the_twin_is_told_apart_from_its_neighbours(twin: Slow, path: Path) -> None:
    """It would notice another rotation of text, another mask, or projections that are not the text's."""
    slow = twin().double()
    ours = built(saved(path, slow)).double()
    first = ours.layers[0]
    assert isinstance(first, DualBlock)
    given, q = prompts([3, 5], rubbish=True), torch.randint(K, (2, 15))
    with torch.no_grad():
        want = slow(q, given.states, given.valid)
        for net, c in (
            (slow, Prompts(given.states, torch.ones_like(given.valid))),
            (slow, Prompts(given.states.flip(1), given.valid)),
        ):
            assert (net(q, c.states, c.valid) - want).abs().max() > 1e-3
        first.attention.wo_text.weight.copy_(first.attention.wo.weight)
        logits = ours(q, given).logits
    assert logits is not None
    assert (logits - want).abs().max() > 1e-3


def test_text_is_blind_to_itself_when_released(twin: Slow, path: Path) -> None:
    """Its queries and keys are zero, so a row of text is the mean of those it sees, whatever they say."""
    net = twin(layers=1, dual=1).double()
    table, sees = net.table(3).double(), net.sees(torch.ones(1, T, dtype=torch.bool), 3)
    attention = net.layers[0].attention
    with torch.no_grad():
        attention.wo_text.weight.copy_(torch.eye(32))
        x = torch.randn(1, T + 3, 32, dtype=torch.float64)
        out = attention(x, table, sees, T)
        values = x[:, :T] @ attention.wqkv_text.weight[64:].T
    means = values.cumsum(1) / torch.arange(1, T + 1)[:, None]
    torch.testing.assert_close(out[:, :T], means, atol=1e-12, rtol=1e-12)


# ---------------------------------------------------------------------------------------------------- files


def test_what_a_file_tells(twin: Slow, path: Path) -> None:
    found = read(saved(path, twin()))
    assert (found.layers, found.heads, found.width, found.codebook_size) == (3, 2, 32, K)
    assert (found.classes, found.text_width, found.dual, found.layout) == (0, C, 2, "gear")
    text = Text(tokens=300, dual=2, rotary="zero", padding="right")
    assert (found.architecture.text, found.architecture.classes) == (text, None)
    assert torch.equal(found.tensors["cls_embedding.null"], torch.zeros(1, C))
    check(replace(Config(), generator=found.architecture))


def test_a_file_becomes_a_generator_in_one_call(twin: Slow, path: Path) -> None:
    ours = Generator.from_released(saved(path, twin()), grid=(4, 4))
    assert (ours.config.text, ours.training) == (Text(dual=2, rotary="zero", padding="right"), False)
    states = torch.zeros(1, 300, C)
    states[0, :2] = 1.0
    logits = ours(torch.zeros(1, 3, dtype=torch.long), Prompts(states, states[..., 0] > 0)).logits
    assert logits is not None
    assert logits.isfinite().all()


def test_the_average_and_the_projectors_are_read(twin: Slow, path: Path) -> None:
    net = twin()
    mean = {name: t + 1 for name, t in net.state_dict().items()}
    bank = {f"projs.0.{i}.{kind}": torch.ones(*shape) for i, rows, cols in ((0, 16, 32), (2, 16, 16), (4, 6, 16))
            for kind, shape in (("weight", (rows, cols)), ("bias", (rows,)))}  # fmt: skip
    saved(path, net, ema=mean, projectors=bank, args={"enc_type": "dinov2-vit-b"})
    found = read(path)
    assert (found.averaged, found.target_dims, found.projector) == (True, {"dinov2-b": 6}, 16)
    assert torch.equal(found.tensors["cls_embedding.cap_proj.fc1.weight"], mean["cls_embedding.cap_proj.fc1.weight"])
    assert not read(path, averaged=False).averaged
    assert built(path).target_dims == {"dinov2-b": 6}


def test_writing_what_was_read_gives_the_same_file(twin: Slow, path: Path, tmp_path: Path) -> None:
    net = twin()
    found = read(saved(path, net))
    write(tmp_path / "again.pt", found.tensors, found.layout)
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert again["ar"].keys() == net.state_dict().keys()  # without our row for no caption
    assert all(torch.equal(again["ar"][name], t) for name, t in net.state_dict().items())
    write(tmp_path / "ours.pt", built(path).state_dict(), "gear")
    assert torch.load(tmp_path / "ours.pt", weights_only=True)["ar"].keys() == net.state_dict().keys()


def test_llamagens_layout_has_no_place_for_text(twin: Slow, path: Path, tmp_path: Path) -> None:
    found = read(saved(path, twin()))
    with pytest.raises(ReleasedError, match='text-to-image generator, which only the layout "gear" has'):
        write(tmp_path / "again.pt", found.tensors, "llamagen")
    assert not (tmp_path / "again.pt").exists()


def test_it_is_read_as_a_source_and_saved_as_one(twin: Slow, path: Path, tmp_path: Path) -> None:
    """A text-to-image generator has no classes, and draws the same however it came."""
    found = sources.read(str(saved(path, twin())))
    assert (found.classes, found.config.generator.text) == ((), Text(dual=2, rotary="zero", padding="right"))
    sized = replace(found.config.tokenizer, quantizer=replace(found.config.tokenizer.quantizer, codebook_size=K))
    found = replace(
        found, config=replace(found.config, tokenizer=sized, data=replace(found.config.data, resolution=64))
    )
    net = run.generator_of(found)
    net.save_pretrained(tmp_path / "hub")
    again = sources.read(str(tmp_path / "hub"))
    assert (again.classes, again.config.generator) == ((), found.config.generator)
    assert all(torch.equal(t, again.tensors[f"generator.{name}"]) for name, t in net.state_dict().items())


def test_what_public_code_would_draw_otherwise_is_not_exported_for_it(tmp_path: Path) -> None:
    """It pads behind, to 300 tokens, and rotates text by zeros."""
    exact = Text(dual=2, rotary="zero", padding="right")
    for text, allowed in ((exact, True), (replace(exact, rotary="identity"), False), (replace(exact, tokens=7), False),
                          (replace(exact, padding="left"), False)):  # fmt: skip
        architecture = replace(Config().generator, layers=3, heads=2, width=32, tap=1, text=text)
        net = Generator(architecture, codebook_size=16384, classes=0, grid=(16, 16), text_width=C)
        folder = tmp_path / f"{text.rotary}-{text.padding}-{text.tokens}"
        net.save_pretrained(folder)
        if allowed:
            exporting.export(folder, tmp_path / "t2i.pt", "gear", "generator")
            assert read(tmp_path / "t2i.pt").text_width == C
        else:
            with pytest.raises(ValueError, match="public code pads captions behind to 300 tokens"):
                exporting.export(folder, tmp_path / "other.pt", "gear", "generator")
    assert not (tmp_path / "other.pt").exists()


def test_1b_has_the_released_tensors_and_parameters() -> None:
    """As many as were counted in the trainer's own."""
    sizes = released.sizes(
        "1B",
        {
            "tok_embeddings.weight": torch.empty(16384, 1440, device="meta"),
            "cls_embedding.cap_proj.fc1.weight": torch.empty(1440, 2048, device="meta"),
            "layers.35.attention.wo.weight": torch.empty(0),
            **{f"layers.{i}.attention.wo_text.weight": torch.empty(0) for i in range(12)},
        },
    )
    assert released.HEADS[sizes.layers, sizes.width] == 20
    assert sum(map(math.prod, sizes.shapes().values())) == 1_047_659_040
    architecture = replace(released.SIZES["1B"], text=Text())
    with torch.device("meta"):
        net = Generator(architecture, codebook_size=16384, classes=0, grid=(16, 16), text_width=2048)
    own = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert own == sizes.shapes()
    assert net.state_dict().keys() - own.keys() == {"cls_embedding.null"}


# ---------------------------------------------------------------------------------------------------- refusals


FC1 = "cls_embedding.cap_proj.fc1.weight"
WO_TEXT = "layers.1.attention.wo_text.weight"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({FC1: None}, f"lacks {FC1}|its {FC1}"),
        ({"cls_embedding.cap_proj.fc2.weight": None}, "lacks cls_embedding.cap_proj.fc2.weight"),
        ({FC1: torch.ones(31, C)}, rf"its {FC1} is \(31, 10\) and should be \(32, 10\)"),
        ({FC1: torch.ones(32)}, f"its {FC1} is"),
        ({FC1: torch.full((32, C), math.nan)}, f"{FC1} has NaN or infinity"),
        ({WO_TEXT: None}, f"it lacks {WO_TEXT}"),
        ({WO_TEXT: torch.ones(32, 31)}, rf"its {WO_TEXT} is \(32, 31\) and should be \(32, 32\)"),
        ({"layers.1.attention_norm_text.weight": None}, "lacks layers.1.attention_norm_text.weight"),
        ({"layers.0.ffn_norm_text.weight": torch.ones(32)}, "layers.0.ffn_norm_text.weight has no place here"),
        ({"cls_embedding.embedding_table.weight": torch.ones(6, 32)}, "embedding_table.weight has no place here"),
        ({"cls_embedding.cap_proj.fc1.bias": torch.ones(32)}, "cls_embedding.cap_proj.fc1.bias has no place here"),
        ({"cls_embedding.null": torch.ones(1, C)}, "cls_embedding.null has no place here"),
        (
            {"cls_embedding.uncond_embedding": torch.ones(T, C)},
            "LlamaGen's own text-to-image generator, which reads T5",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(
    twin: Slow, path: Path, change: dict[str, Any], what: str
) -> None:
    state = twin().state_dict() | change
    torch.save({"ar": {name: t for name, t in state.items() if t is not None}}, path)
    with pytest.raises(ReleasedError, match=what):
        read(path)


def without_text(state: dict[str, torch.Tensor], *blocks: int) -> dict[str, torch.Tensor]:
    gone = tuple(f"layers.{block}." for block in blocks)
    return {name: t for name, t in state.items() if not (name.startswith(gone) and "_text." in name)}


def test_dual_blocks_are_the_first_ones_without_a_gap(twin: Slow, path: Path) -> None:
    torch.save({"ar": without_text(twin(dual=3).state_dict(), 1)}, path)
    with pytest.raises(ReleasedError, match="weights for text in the blocks 0, 2; they must be the first ones"):
        read(path)
    torch.save({"ar": without_text(twin().state_dict(), 0, 1)}, path)
    with pytest.raises(ReleasedError, match="a text-to-image generator of one stream; only those of GEAR's trainer"):
        read(path)
    torch.save({"ar": twin(dual=3).state_dict()}, path)
    assert read(path).dual == 3
