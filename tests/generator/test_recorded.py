"""Recorded token steps draw what plain ones do. On a CPU a tape is a CUDA graph: operators with their memory."""

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gear.config import Text
from gear.generator import Generator, generate, sampling
from gear.generator.recorded import Recorded
from gear.prompts import Prompts

OPTIONS = [{}, {"cfg_scale": 3.0}, {"cfg_scale": 3.0, "cfg_interval": (2, 7)}, {"top_k": 6, "top_p": 0.8}]
BATCH, LABELS = 3, torch.tensor([0, 4, 1, 2, 2, 3, 4, 0, 1, 3])  # four passes, of which the last has one image
WAITS = {"_local_scalar_dense", "equal", "nonzero", "is_nonzero", "masked_select"}  # for what the device has computed


class Tape(TorchDispatchMode):
    """As a CUDA graph: the operators of `work`, which read and write the same memory again when they are played.
    Unlike one, it has run them once by then."""

    def __init__(self, work: Callable[[], None]):
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, Any]] = []
        with self:
            work()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.__name__.split(".")[0] not in WAITS, f"a graph cannot ask the device: {func}"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self) -> None:
        for func, args, kwargs, out in self.calls:
            again, said = func(*args, **kwargs), func._schema.returns
            pairs = [(out, again)] if len(said) == 1 else zip(out or (), again or (), strict=True)
            for (old, new), one in zip(pairs, said, strict=True):
                if isinstance(old, Tensor) and one.alias_info is None:  # else a view, or written in place
                    old.copy_(new)


def counted(monkeypatch, record: Callable[[Callable[[], None]], Callable[[], None]]) -> list[str]:
    """`generate` records by `record`; what it records and plays is told, in order."""
    told: list[str] = []

    def told_record(work):
        told.append("record")
        replay = record(work)
        return lambda: (told.append("play"), replay())[1]

    monkeypatch.setattr(sampling, "graphs", lambda device: told_record)
    return told


def again(work: Callable[[], None]) -> Callable[[], None]:
    return work


def tape(work: Callable[[], None]) -> Callable[[], None]:
    return Tape(work).play


@pytest.fixture
def talking(tiny) -> Callable[..., Generator]:
    def make(padding: Literal["left", "right"]) -> Generator:
        generator = tiny(text=Text(tokens=6, dual=1, padding=padding), text_width=10, classes=0)
        torch.nn.init.normal_(generator.cls_embedding.null)
        return generator

    return make


def captions(padding: str) -> Prompts:
    """Of five lengths, so that each pass sees others."""
    lengths, place = (4, 1, 6, 2, 5), torch.arange(6)
    states = torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(0))
    valid = torch.stack([place >= 6 - n if padding == "left" else place < n for n in lengths])
    return Prompts(torch.where(valid[..., None], states, 0.0), valid)


def pass_by_pass(generator: Generator, **given: Any) -> Tensor:
    """Each pass in a call of its own, in memory of its own."""
    ids = range(len(LABELS))
    calls = [(LABELS[i : i + BATCH], ids[i : i + BATCH]) for i in ids[::BATCH]]
    return torch.cat([generate(generator, some, seed=1, batch=BATCH, image_ids=at, **given) for some, at in calls])


@pytest.mark.parametrize("record", [again, tape])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_recorded_steps_draw_the_same(tiny, options, record, monkeypatch):
    generator = tiny()
    plain = pass_by_pass(generator, **options)
    assert torch.equal(generate(generator, LABELS, seed=1, batch=BATCH, **options), plain)  # which share their memory
    told = counted(monkeypatch, record)
    steps: list[tuple[int, int]] = []
    parts: dict[tuple[int, ...], Tensor] = {}
    recorded = generate(
        generator,
        LABELS,
        seed=1,
        batch=BATCH,
        cuda_graphs=True,
        progress=lambda *at: steps.append(at),
        finished=lambda indices, tokens: parts.update({tuple(indices): tokens}),
        **options,
    )
    assert torch.equal(recorded, plain)
    assert told == ["record", "play"] * 12 + ["play"] * 24
    assert steps == [(i + 1, 48) for i in range(48)]
    for indices, tokens in parts.items():  # those of a pass stay, whatever the next one draws
        assert torch.equal(tokens, plain[list(indices)])


@pytest.mark.parametrize("record", [again, tape])
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_recorded_steps_draw_the_same_of_texts(talking, padding, options, record, monkeypatch):
    generator, prompts = talking(padding), captions(padding)
    plain = pass_by_pass(generator, prompts=prompts, **options)
    assert torch.equal(generate(generator, LABELS, seed=1, batch=BATCH, prompts=prompts, **options), plain)
    counted(monkeypatch, record)
    recorded = generate(generator, LABELS, seed=1, batch=BATCH, prompts=prompts, cuda_graphs=True, **options)
    assert torch.equal(recorded, plain)


def test_a_tape_knows_memory_and_not_objects():
    """Else it would say nothing of graphs."""
    held = {"x": torch.zeros(2), "y": torch.zeros(2)}

    def work() -> None:
        held["y"].copy_(held["x"] + 1)

    play, y = tape(work), held["y"]
    held["x"].fill_(5)
    play()
    assert y.tolist() == [6, 6]
    held["x"] = torch.full((2,), 7.0)
    play()
    assert y.tolist() == [6, 6]
    with pytest.raises(AssertionError, match="cannot ask the device"):
        Tape(lambda: print(held["x"].isfinite().all().item()))


def test_fewer_than_three_passes_are_not_recorded(tiny, monkeypatch):
    generator = tiny()
    told = counted(monkeypatch, again)
    few = generate(generator, LABELS[:6], seed=1, batch=BATCH, cuda_graphs=True)
    assert told == []
    assert torch.equal(few, generate(generator, LABELS, seed=1, batch=BATCH)[:6])


def test_recorded_logits_that_are_not_finite_are_named(tiny, monkeypatch):
    """In a pass that was replayed, too."""
    generator = tiny()
    counted(monkeypatch, tape)
    passes: list[int] = []

    def diverge(indices: list[int], tokens: Tensor) -> None:
        passes.append(len(indices))
        if len(passes) == 2:
            generator.tok_embeddings.weight.data.fill_(torch.nan)  # which a packed one shares

    with pytest.raises(ValueError, match="logits are not finite"):
        generate(generator, LABELS, seed=1, batch=BATCH, cuda_graphs=True, finished=diverge)
    assert passes == [3, 3]


def test_each_step_runs_then_is_recorded_then_replayed():
    told: list[str] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        told.append("record")
        return lambda: (told.append("play"), work())[1]

    take = Recorded(lambda number: told.append(f"step {number}"), record)
    for number in (0, 1, 0, 1, 0, 1):
        take(number)
    played = ["play", "step 0"], ["play", "step 1"]
    assert told == ["step 0", "step 1", "record", *played[0], "record", *played[1], *played[0], *played[1]]


def test_on_another_device_it_is_refused(tiny):
    with pytest.raises(ValueError, match=r"CUDA graphs need a generator on a CUDA device; this one is on cpu"):
        generate(tiny(), LABELS, seed=1, cuda_graphs=True)


# ------------------------------------------------------------------------------------------------------------ on CUDA


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cuda_graphs_draw_the_same(tiny, options):
    generator = tiny().cuda()
    plain = pass_by_pass(generator, **options)
    assert torch.equal(generate(generator, LABELS, seed=1, batch=BATCH, cuda_graphs=True, **options), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_cuda_graphs_draw_the_same_of_texts(talking, padding, options):
    generator, given = talking(padding).cuda(), {"prompts": captions(padding), **options}
    plain = pass_by_pass(generator, **given)
    assert torch.equal(generate(generator, LABELS, seed=1, batch=BATCH, cuda_graphs=True, **given), plain)
