"""A checkpoint gives back every bit, is whole or not there, and no file can crash the reader or run code in it."""

import hashlib
import json
import os
import pickle
import resource
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gear.config import LFQ, Config
from gear.store import saving, torch_file
from gear.train import state
from gear.train.resume import restore
from gear.train.state import CheckpointError
from gear.update import Trained, update

CLASSES = ("disc", "square")


def group(seed: int, name: str = "tokenizer", ema: float | None = 0.9) -> Trained:
    """Convolutions in channels_last, as the tokenizer's are, and a normalisation, which has whole-number buffers."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trained(name, module, torch.optim.AdamW(module.parameters(), 1e-2, fused=True), 1.0, ema)


def train(group: Trained, steps: range) -> None:
    for step in steps:
        x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        update(group(x).square().mean(), group)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def one_sentence(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.fixture
def written(tiny: Config, tmp_path: Path) -> Path:
    """A checkpoint of step 3."""
    one = group(0)
    train(one, range(3))
    state.save(tmp_path / state.NAME, [one], 3, tiny, CLASSES)
    return tmp_path / state.NAME


# ------------------------------------------------------------------------------------------------- there and back


def test_what_was_saved_comes_back(tiny: Config, tmp_path: Path) -> None:
    groups = [group(0), group(1, "critic", ema=None)]
    for one in groups:
        train(one, range(3))
    log = {"sum.ntp": torch.tensor(0.5), "steps": torch.tensor(2)}
    state.save(tmp_path / state.NAME, groups, 3, tiny, CLASSES, log)
    assert os.listdir(tmp_path) == [state.NAME]
    assert stat.S_IMODE((tmp_path / state.NAME).stat().st_mode) == 0o644
    for place in (tmp_path, tmp_path / state.NAME):
        found = state.load(place)
        assert (found.path, found.step, found.config, found.classes) == (tmp_path / state.NAME, 3, tiny, CLASSES)
        for one in groups:
            part = found.part(one.name)
            assert part.keys() == one.module.state_dict().keys()
            assert all(torch.equal(t, part[key]) for key, t in one.module.state_dict().items())
        assert groups[0].ema is not None
        average = groups[0].ema.module.state_dict()
        assert all(torch.equal(t, found.averaged("tokenizer")[key]) for key, t in average.items())
        assert torch.equal(found.averaged("critic")["0.weight"], found.part("critic")["0.weight"])  # no average kept
        assert found.part("log") == log
        assert found.part("generator") == found.averaged("generator") == {}


def test_training_goes_on_to_the_last_bit(tiny: Config, written: Path) -> None:
    whole, again = group(0), group(7)
    train(whole, range(6))
    restore(again, state.load(written))
    for p in again.module.parameters():
        moments = again.optimizer.state[p]
        assert moments["step"] == 3
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == p.stride()
    train(again, range(3, 6))
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        moments, others = whole.optimizer.state[a], again.optimizer.state[b]
        assert all(torch.equal(moments[name], others[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


def test_a_group_that_never_moved_has_no_moments(tiny: Config, tmp_path: Path) -> None:
    state.save(tmp_path / state.NAME, [group(0)], 0, tiny, CLASSES)
    fresh = group(1)
    restore(fresh, state.load(tmp_path))
    assert not fresh.optimizer.state
    train(fresh, range(1))


def test_odd_class_names(tiny: Config, tmp_path: Path) -> None:
    names = ("été", 'quote " and, comma', "\udcff not utf-8", "猫")
    state.save(tmp_path / state.NAME, [group(0)], 0, tiny, names)
    assert state.load(tmp_path).classes == names


# ----------------------------------------------------------------------------------------------- writing that fails


def test_a_full_disk(tiny: Config, written: Path) -> None:
    before, (soft, hard) = files(written.parent), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # no file may grow beyond; a checkpoint is 40 kB
    try:
        with pytest.raises(CheckpointError) as error:
            state.save(written, [group(1)], 9, tiny, CLASSES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    text = one_sentence(error)
    assert "step 9" in text
    assert "too large" in text
    assert f"The last one, {written}, is intact" in text
    assert files(written.parent) == before


@pytest.mark.parametrize(("at", "kept"), [(saving, "intact"), (os, "intact"), (os, "No earlier one exists")])
def test_a_folder_that_cannot_be_written(
    tiny: Config, written: Path, monkeypatch: pytest.MonkeyPatch, at: Any, kept: str
) -> None:
    """At the first byte, or only at the renaming; with an earlier checkpoint, or without."""
    if kept != "intact":
        written.unlink()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    before = files(written.parent)
    monkeypatch.setattr(at, "save_file" if at is saving else "replace", refuse)
    with pytest.raises(CheckpointError, match="Permission denied") as error:
        state.save(written, [group(1)], 9, tiny, CLASSES)
    assert kept in one_sentence(error)
    assert files(written.parent) == before


def test_ctrl_c_while_writing(tiny: Config, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    before = files(written.parent)
    monkeypatch.setattr(saving, "save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        state.save(written, [group(1)], 9, tiny, CLASSES)
    assert files(written.parent) == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_diverged_weights_do_not_replace_good_ones(tiny: Config, written: Path, value: float) -> None:
    before, broken = files(written.parent), group(0)
    broken.module[2].bias.data[3] = value
    with pytest.raises(CheckpointError) as error:
        state.save(written, [broken], 9, tiny, CLASSES)
    text = one_sentence(error)
    assert "tokenizer.2.bias is not finite" in text
    assert "intact" in text
    assert files(written.parent) == before


# ------------------------------------------------------------------------------------------- files that cannot be used


def truncated(size: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


class Payload:
    """Unpickling it makes the file `marker`."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(path.with_name("executed"))))


def torch_saved(path: Path) -> None:
    torch.save({"tokenizer": Payload(path.with_name("executed"))}, path)


def rewritten(**changes: str | None) -> Callable[[Path], None]:
    """Another header, over the same tensors; None takes an entry away."""

    def change(path: Path) -> None:
        found = state.load(path)
        header = state.header(found.step, found.config, found.classes) | changes
        save_file(dict(found.tensors), path, {k: v for k, v in header.items() if v is not None})

    return change


def from_the_future(path: Path) -> None:
    config = json.loads(state.header(0, state.load(path).config, ())["config"])
    config["stage"]["novelty"] = 1
    rewritten(config=json.dumps(config))(path)


def not_a_number(path: Path) -> None:
    found = state.load(path)
    tensors = dict(found.tensors) | {"tokenizer.0.bias": torch.full((16,), torch.nan)}
    save_file(tensors, path, state.header(found.step, found.config, found.classes))


def flipped(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def whole(tiny: Config, path: Path) -> dict[str, tuple[int, int]]:
    """A checkpoint of every kind of part at `path`: where in the file the bytes of each tensor are."""
    groups = [group(0), group(1, "critic", ema=None)]
    for one in groups:
        train(one, range(3))
    log = {"sum.ntp": torch.tensor(0.5), "counts": torch.arange(9), "half": torch.ones(3, dtype=torch.bfloat16)}
    state.save(path, groups, 3, tiny, CLASSES, log | {"none": torch.empty(0), "flags": torch.tensor([True, False])})
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    entries.pop("__metadata__")
    return {key: (start + e["data_offsets"][0], start + e["data_offsets"][1]) for key, e in entries.items()}


PARTS = {"tokenizer", "tokenizer_ema", "tokenizer_averages", "tokenizer_optimizer", "critic", "critic_optimizer", "log"}


def test_a_flipped_bit_in_any_tensor_is_found(tiny: Config, tmp_path: Path) -> None:
    """And named by its part; the other parts can still be read."""
    path = tmp_path / state.NAME
    places = whole(tiny, path)
    assert {key.split(".")[0] for key in places} == PARTS
    content = path.read_bytes()
    for key, (start, end) in places.items():
        part = key.split(".")[0]
        for at in {start, end - 1} if end > start else ():
            flipped(path, at)
            for asked in (None, {part}):
                with pytest.raises(CheckpointError, match=f"{path} is damaged: its {part} differs.*another") as error:
                    state.load(path, asked)
                one_sentence(error)
            assert state.load(path, PARTS - {part}).step == 3
            path.write_bytes(content)
    assert state.load(path).step == 3


def test_a_flipped_bit_in_the_header_is_found(tiny: Config, tmp_path: Path) -> None:
    """Or changes nothing that is read."""
    path = tmp_path / state.NAME
    start = min(places[0] for places in whole(tiny, path).values())
    content, before, unnoticed = path.read_bytes(), state.load(path), 0
    for at in range(0, start, 31):
        flipped(path, at, bit=at % 8)
        try:
            found = state.load(path)
        except CheckpointError:
            pass
        else:
            unnoticed += 1
            assert (found.step, found.config, found.classes) == (before.step, before.config, before.classes)
            assert found.tensors.keys() == before.tensors.keys()
            assert all(torch.equal(t, before.tensors[key]) for key, t in found.tensors.items())
        path.write_bytes(content)
    assert unnoticed < start / 31 / 20


def test_the_digests_are_over_names_kinds_shapes_and_bytes() -> None:
    """By an example that is written out, and by changes of which each must show."""
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    by_hand = hashlib.sha256(b'["a.x", "torch.float32", [2, 2]]' + x.numpy().tobytes()).hexdigest()
    by_hand_too = hashlib.sha256(b'["b", "torch.int64", []]' + (5).to_bytes(8, "little")).hexdigest()
    made = state.digests({"b": torch.tensor(5), "a.x": x}, {"step": "3"})
    assert made == {"a": by_hand, "b": by_hand_too, "header": hashlib.sha256(b'{"step": "3"}').hexdigest()}
    others = [{"a.y": x}, {"a.x": x.view(torch.int32)}, {"a.x": x.reshape(4)}, {"a.x": -x}, {"a.x": x, "a.z": x}]
    assert len({by_hand, *(state.digests(other, {})["a"] for other in others)}) == 6
    odd = {
        "a.bfloat16": x.bfloat16(),
        "a.eight": x.to(torch.float8_e4m3fn),
        "a.complex": x.to(torch.complex64),
        "a.strided": x.T,
        "a.mask": x > 2,
        "a.none": torch.empty(0, 2),
    }
    assert state.digests(odd, {}) == state.digests({key: t.clone() for key, t in reversed(odd.items())}, {})


def test_files_without_digests_are_read(written: Path) -> None:
    before = state.load(written)
    rewritten()(written)
    assert torch_file.header(written) == state.header(before.step, before.config, before.classes)
    assert state.load(written).tensors.keys() == before.tensors.keys()
    flipped(written, -1)
    assert state.load(written).step == 3  # nobody can tell


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "there is no checkpoint at"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
        (truncated(6), "not a whole safetensors file"),
        (truncated(900), "not a whole safetensors file"),
        (truncated(-1), "not a whole safetensors file"),
        (lambda path: path.write_bytes(b"\xff" * 1000), "not a whole safetensors file"),
        (pickled, "not a whole safetensors file"),
        (torch_saved, "not a whole safetensors file"),
        (lambda path: save_file({"weight": torch.ones(3)}, path), "not a checkpoint that `gear train` wrote"),
        (rewritten(format="gear-9"), "not a checkpoint that `gear train` wrote"),
        (rewritten(config="{"), "another version"),
        (rewritten(sha256="{"), "damaged: its header differs"),
        (rewritten(sha256="[1]"), "damaged: its header differs"),
        (rewritten(sha256="[" * 10**5), "damaged: its header differs"),
        (rewritten(sha256="{}"), "damaged: its header and tokenizer and tokenizer_averages and"),
        (rewritten(step=None), "another version"),
        (rewritten(classes="["), "another version"),
        (from_the_future, "stage has no field 'novelty'"),
        (not_a_number, "tokenizer.0.bias is not finite"),
    ],
)
def test_unusable_files(written: Path, damage: Callable[[Path], Any], said: str) -> None:
    damage(written)
    with pytest.raises(CheckpointError) as error:
        state.load(written)
    text = one_sentence(error)
    assert said in text
    assert str(written) in text
    assert not written.with_name("executed").exists()


def test_the_payload_would_run(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*gear train RECIPE"):
        state.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "0.bias"}, "it lacks 0.bias"),
        (lambda t: t | {"9.bias": torch.ones(1)}, "9.bias has no place here"),
        (lambda t: t | {"0.bias": torch.ones(4)}, r"its 0.bias is \(4,\) and should be \(16,\)"),
        (lambda t: t | {"0.bias": torch.ones(16, dtype=torch.int64)}, "its 0.bias is of torch.int64 and should be of"),
        (lambda t: t | {"0.bias": torch.full((16,), torch.nan)}, "its 0.bias has NaN or infinity"),
        (lambda t: {}, "it lacks 0.bias; it lacks 0.weight; it lacks 1.bias, and 6 more"),
    ],
)
def test_tensors_of_another_model(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], said: str) -> None:
    module = group(0).module
    before = {key: t.clone() for key, t in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"the tokenizer .*{said}.*another configuration"):
        state.load_strictly(module, change(before), "the tokenizer of a.safetensors")
    assert all(torch.equal(t, before[key]) for key, t in module.state_dict().items())


def test_the_header_holds_the_configuration(tiny: Config, tmp_path: Path) -> None:
    config = replace(tiny, tokenizer=replace(tiny.tokenizer, quantizer=LFQ(5)))
    state.save(tmp_path / state.NAME, [group(0)], 0, config, CLASSES)
    assert state.load(tmp_path).config == config
