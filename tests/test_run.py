"""Whole runs on a folder of images: every stage, the run folder, resumption, refusals."""

import io
import json
import os
import re
import signal
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from torch import Tensor

from gear import provenance, run, weights
from gear.config import IBQ, LFQ, Config, ConfigError, Frozen, Gear, Generator, Naive, Stage, Warmup
from gear.config_json import read, to_json
from gear.store import saving
from gear.train import log, state
from gear.train.batches import Batches, Streamed
from gear.train.stopping import Interrupted

TIMES = ("seconds", "images_per_s", "memory_gib")  # what differs between two runs of the same
STAGES: tuple[Stage, ...] = (Warmup(), Gear(), Frozen(), Naive())


def with_tokenizer(config: Config, **changes: Any) -> Config:
    return replace(config, tokenizer=replace(config.tokenizer, **changes))


def with_loss(config: Config, **changes: float) -> Config:
    return with_tokenizer(config, loss=replace(config.tokenizer.loss, **changes))


def train(config: Config, folder: Path) -> None:
    run.train(config, folder, console=Console(file=io.StringIO()))


def tensors(folder: Path) -> Mapping[str, Tensor]:
    return state.load(folder).tensors


def parts(folder: Path) -> set[str]:
    return {key.split(".")[0] for key in tensors(folder)}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def lines(folder: Path) -> list[dict[str, Any]]:
    timed = log.read(folder / log.NAME)
    return [{k: v for k, v in line.items() if k not in TIMES} for line in timed]


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@contextmanager
def interrupted(at: int) -> Iterator[None]:
    """Ctrl-C arrives while step `at` is being made, and the run must stop after it."""
    batch = Batches.__call__

    def stopped(self: Batches, step: int) -> Any:
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__call__", stopped)
        with pytest.raises(Interrupted, match=f"stopped at step {at + 1} of "):
            yield


# ------------------------------------------------------------------------------------------- what a run leaves


def test_the_folder(tiny: Config, trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {run.CONFIG, provenance.NAME, log.NAME, state.NAME}
    assert read(trained / run.CONFIG) == run.in_full(tiny)
    about = json.loads((trained / provenance.NAME).read_text())
    assert about["classes"] == ["disc", "square"]
    assert about["train"] + about["held_out"] == 8
    assert about["held_out"] >= 1
    found = state.load(trained)
    assert (found.step, found.config, found.classes) == (6, run.in_full(tiny), ("disc", "square"))
    assert [line["step"] for line in lines(trained)] == [2, 4, 6]
    eq2 = {"reconstruction", "perceptual", "adversarial", "entropy", "quantizer", "commitment", "L_VQ", "critic"}
    generator = {"ntp", "align_hard", "align_soft"}
    rest = {
        "step",
        "grad_tokenizer",
        "grad_critic",
        "grad_generator",
        "codebook_entropy",
        "effective_size",
        "dead_codes",
        "codebook_top1",
        "codebook_top10",
        "codebook_top100",
        "skipped_tokenizer",
        "skipped_critic",
        "skipped_generator",
        "broken_images",
        "ranks",
    }
    assert set(lines(trained)[0]) == eq2 | generator | rest


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: type(s).__name__)
def test_stages(tiny: Config, trained: Path, tmp_path: Path, stage: Stage) -> None:
    train(with_tokenizer(replace(tiny, stage=stage, steps=2), init=str(trained)), tmp_path / "run")
    tokenizer = {"tokenizer", "tokenizer_ema", "tokenizer_averages", "tokenizer_optimizer"}
    critic = {"critic", "critic_optimizer"}
    generator = {"generator", "generator_ema", "generator_averages", "generator_optimizer"}
    both = tokenizer | critic | generator
    kept = {Warmup: tokenizer | critic, Gear: both, Frozen: {"tokenizer"} | generator, Naive: both}
    assert parts(tmp_path / "run") == kept[type(stage)] | {"log"}
    start, end = state.load(trained).part("tokenizer_ema"), state.load(tmp_path / "run").part("tokenizer")
    assert same(start, end) == isinstance(stage, Frozen)


@pytest.mark.parametrize("quantizer", [LFQ(4), IBQ(16, 8)], ids=lambda q: type(q).__name__)
def test_other_quantizers_resume_too(tiny: Config, tmp_path: Path, quantizer: LFQ | IBQ) -> None:
    config = with_tokenizer(replace(tiny, steps=4), quantizer=quantizer)
    train(config, tmp_path / "whole")
    with interrupted(at=1):
        train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))


def test_without_gan_and_lpips_and_target(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaGen's losses, on a machine that has no pretrained network at all."""

    def missing(name: str) -> Path:
        raise weights.MissingWeight(f"{name} is not here")

    monkeypatch.setattr(weights, "path", missing)
    config = with_loss(replace(tiny, stage=Gear(lam=0.0), steps=2), perceptual=0.0, adversarial=0.0)
    train(config, tmp_path / "run")
    assert not {part for part in parts(tmp_path / "run") if part.startswith("critic")}
    assert not [key for key in tensors(tmp_path / "run") if "projectors" in key]
    assert not {"perceptual", "adversarial", "critic"} & set(lines(tmp_path / "run")[0])
    assert run.load(tmp_path / "run").generator is not None


def test_bfloat16_keeps_its_state_in_float32(tiny: Config, trained: Path, tmp_path: Path) -> None:
    train(replace(tiny, precision="bfloat16", steps=2), tmp_path / "run")
    found = tensors(tmp_path / "run")
    assert {t.dtype for t in found.values()} == {t.dtype for t in tensors(trained).values()}
    first, full = lines(tmp_path / "run")[0], lines(trained)[0]
    assert first["reconstruction"] != full["reconstruction"]
    assert first["reconstruction"] == pytest.approx(full["reconstruction"], rel=0.05)
    assert first["ntp"] == pytest.approx(full["ntp"], rel=0.05)


# ------------------------------------------------------------------------------------------- again, and going on


def test_the_written_configuration_trains_the_same_run_again(trained: Path, tmp_path: Path) -> None:
    train(read(trained / run.CONFIG), tmp_path / "again")
    assert same(tensors(tmp_path / "again"), tensors(trained))
    assert lines(tmp_path / "again") == lines(trained)


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: type(s).__name__)
def test_an_interrupted_run_is_the_same_to_the_last_bit(
    tiny: Config, trained: Path, tmp_path: Path, stage: Stage
) -> None:
    """Interrupted twice, once between two log lines; dropout and class drop are on, epochs end within batches."""
    assert tiny.generator.dropout > 0
    assert tiny.generator.class_drop > 0
    config = with_tokenizer(replace(tiny, stage=stage), init=str(trained))
    train(config, tmp_path / "whole")
    for at in (2, 3):
        with interrupted(at):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_a_started_run_does_not_need_the_run_it_started_from(tiny: Config, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "warm.safetensors").write_bytes((trained / state.NAME).read_bytes())
    config = with_tokenizer(replace(tiny, stage=Frozen()), init=str(tmp_path / "warm.safetensors"))
    train(replace(config, steps=2), tmp_path / "run")
    (tmp_path / "warm.safetensors").unlink()
    train(replace(config, steps=3), tmp_path / "run")
    assert state.load(tmp_path / "run").step == 3


def test_shared_data_changes_nothing(tiny: Config, trained: Path, tmp_path: Path) -> None:
    """As the demo does it: several runs in one process on the same images and remembered features."""
    prepared = run.prepare(tiny, torch.device("cpu"))
    other = replace(tiny, seed=1, steps=2)
    run.train(other, tmp_path / "other", prepared=prepared, console=Console(file=io.StringIO()))
    run.train(tiny, tmp_path / "run", prepared=prepared, console=Console(file=io.StringIO()))
    assert same(tensors(tmp_path / "run"), tensors(trained))


# ------------------------------------------------------------------------------------------- a folder that is taken


@pytest.fixture
def taken(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`."""
    folder = tmp_path / "taken"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: replace(c, seed=3, batch=2), r"\(batch: 3 -> 2; seed: 0 -> 3\)"),
        (lambda c: replace(c, stage=Gear(tau=0.2)), r"\(stage.tau: 0.1 -> 0.2\)"),
        (lambda c: replace(c, stage=Warmup()), r"stage.kind: Gear -> Warmup"),
        (lambda c: with_tokenizer(c, quantizer=LFQ(4)), r"tokenizer.quantizer.kind: VQ -> LFQ"),
        (lambda c: replace(c, seed=3, steps=5), r"\(seed: 0 -> 3\)"),
        (lambda c: replace(c, steps=5), r"has made 6 steps already; steps must be at least that. It is 5\.$"),
    ],
)
@pytest.mark.parametrize("lost", [False, True], ids=["", "config.json lost"])
def test_another_configuration_is_refused_and_nothing_changes(
    tiny: Config, taken: Path, change: Callable[[Config], Config], said: str, lost: bool
) -> None:
    if lost:
        (taken / run.CONFIG).unlink()
    before = files(taken)
    with pytest.raises(ConfigError, match=said) as error:
        train(change(tiny), taken)
    assert "\n" not in str(error.value)
    assert files(taken) == before


def test_what_does_not_change_the_result_may_change(tiny: Config, taken: Path) -> None:
    before = tensors(taken)
    train(replace(tiny, log_every=5, save_every=3, device="auto"), taken)
    assert same(tensors(taken), before)
    assert read(taken / run.CONFIG).log_every == 5


def test_a_folder_of_images_is_kept_by_its_whole_path(
    tiny: Config, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images_folder.parent)
    near = replace(tiny, data=replace(tiny.data, path=images_folder.name), steps=1)
    train(near, tmp_path / "run")
    assert read(tmp_path / "run" / run.CONFIG) == run.in_full(replace(tiny, steps=1))
    train(near, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    train(read(tmp_path / "run" / run.CONFIG), tmp_path / "run")


def test_files_that_are_named_are_kept_by_their_whole_paths(tiny: Config, tmp_path: Path, monkeypatch: Any) -> None:
    target = replace(tiny.targets[0], weights="w.safetensors")
    near = replace(tiny, data=replace(tiny.data, codes="codes", classes="names.txt"), targets=(target,))
    monkeypatch.chdir(tmp_path)
    there = run.in_full(near)
    assert (there.data.codes, there.data.classes) == (str(tmp_path / "codes"), str(tmp_path / "names.txt"))
    assert there.targets[0].weights == str(tmp_path / "w.safetensors")
    monkeypatch.chdir("/")
    assert run.in_full(there) == there
    for labels in ("folders", "imagenet"):
        assert run.in_full(replace(tiny, data=replace(tiny.data, classes=labels))).data.classes == labels


def test_an_edited_configuration_is_another_one(tiny: Config, taken: Path) -> None:
    """The checkpoint knows what it was made with, so that the file in the folder cannot say otherwise."""
    file = taken / run.CONFIG
    stage = replace(tiny.stage, tau=0.9) if isinstance(tiny.stage, Gear) else Gear(tau=0.9)
    edited = replace(read(file), stage=stage, steps=9)
    file.write_text(to_json(edited))
    before = files(taken)
    with pytest.raises(ConfigError, match=r"another configuration \(stage\..*, or give what it began with"):
        train(read(file), taken)
    assert files(taken) == before


def test_other_parts_of_a_batch_are_told_where_the_tokenizer_trains(tiny: Config, taken: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    other = replace(tiny, steps=tiny.steps + 1, engine=replace(tiny.engine, accumulate=3))
    run.train(other, taken, console=Console(file=said, width=400))
    assert "engine.accumulate is 3, and was 1: the tokenizer's batch statistics are of a part" in said.getvalue()


def test_steps_may_grow(tiny: Config, taken: Path, tmp_path: Path) -> None:
    longer = replace(tiny, steps=8)
    train(longer, taken)
    train(longer, tmp_path / "whole")
    assert same(tensors(taken), tensors(tmp_path / "whole"))
    assert lines(taken) == lines(tmp_path / "whole")
    assert read(taken / run.CONFIG) == run.in_full(longer)
    assert state.load(taken).config == run.in_full(longer)


def test_steps_may_shrink_to_what_is_done(tiny: Config, tmp_path: Path) -> None:
    with interrupted(at=2):
        train(tiny, tmp_path / "run")
    with pytest.raises(ConfigError, match="has made 3 steps already"):
        train(replace(tiny, steps=2), tmp_path / "run")
    train(replace(tiny, steps=3), tmp_path / "run")
    assert state.load(tmp_path / "run").step == 3


def test_a_start_that_failed_leaves_the_folder_free(
    tiny: Config, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Batches, step: int) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__call__", fail)
        with pytest.raises(MemoryError):
            train(replace(tiny, batch=500), tmp_path / "run")
    assert read(tmp_path / "run" / run.CONFIG).batch == 500
    train(tiny, tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(trained))


@pytest.mark.parametrize("content", ["", "{", '{"kind": "Recipe"}'])
def test_a_damaged_configuration_is_named(tiny: Config, taken: Path, content: str) -> None:
    (taken / run.CONFIG).write_text(content)
    with pytest.raises(ConfigError, match=f"{taken / run.CONFIG} cannot be used"):
        train(tiny, taken)


def test_a_damaged_checkpoint_is_named(tiny: Config, taken: Path) -> None:
    (taken / state.NAME).write_bytes((taken / state.NAME).read_bytes()[:5000])
    with pytest.raises(state.CheckpointError, match=f"{taken / state.NAME} is not a whole safetensors file"):
        train(replace(tiny, steps=8), taken)


# ------------------------------------------------------------------------------------------- edited data


@pytest.fixture
def images(images_folder: Path, tmp_path: Path) -> Path:
    """A copy of the images."""
    folder = tmp_path / "images"
    for path in images_folder.rglob("*.png"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    return folder


def add(folder: Path) -> None:
    (folder / "disc" / "new.png").write_bytes((folder / "disc" / "0.png").read_bytes())


def add_class(folder: Path) -> None:
    (folder / "star").mkdir()
    (folder / "star" / "0.png").write_bytes((folder / "disc" / "0.png").read_bytes())


def repaint(folder: Path) -> None:
    for i in range(4):
        (folder / "disc" / f"{i}.png").write_bytes((folder / "square" / f"{i}.png").read_bytes())


def rename(folder: Path) -> None:
    for path in list((folder / "disc").iterdir()):
        path.rename(path.with_name(f"renamed-{path.name}"))


@pytest.mark.parametrize(
    ("edit", "said", "crops"),
    [
        (add, r"images to train on: (\d) -> (?!\1)\d; names and classes of the images differ", ("center", "random")),
        (add_class, r"classes: 1 new: star; ", ("center", "random")),
        (repaint, r"\(pixels of the images differ\)", ("center",)),
        (rename, r"names and classes of the images differ", ("center", "random")),
    ],
)
def test_edited_data_are_refused_field_by_field(
    tiny: Config, images: Path, tmp_path: Path, edit: Callable[[Path], None], said: str, crops: tuple[str, ...]
) -> None:
    for crop in crops:
        data = replace(tiny.data, path=str(images), crop=crop, workers=0)
        train(replace(tiny, data=data, steps=2), tmp_path / crop)
    edit(images)
    for crop in crops:
        before = files(tmp_path / crop)
        data = replace(tiny.data, path=str(images), crop=crop, workers=0)
        with pytest.raises(ConfigError, match=said) as refused:
            train(replace(tiny, data=data), tmp_path / crop)
        assert re.search(r"restore them .* or train .* in another folder \(--out\)", str(refused.value))
        assert files(tmp_path / crop) == before


# ------------------------------------------------------------------------------------------- other refusals


def test_a_full_disk_keeps_the_last_checkpoint(
    tiny: Config, taken: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
        path.write_bytes(b"\0" * 100)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_file", full)
        with pytest.raises(state.CheckpointError, match=r"step 8 .*No space left.*intact"):
            train(replace(tiny, steps=8), taken)
    assert same(tensors(taken), tensors(trained))
    assert {path.name for path in taken.iterdir()} == {path.name for path in trained.iterdir()}
    train(replace(tiny, steps=8), taken)  # space was freed
    assert [line["step"] for line in lines(taken)] == [2, 4, 6, 8]


def test_a_folder_that_cannot_be_made(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        train(tiny, tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        train(tiny, tmp_path / "file" / "run")


def test_a_folder_that_cannot_be_written(tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refused)
    with pytest.raises(OSError, match=rf"{run.CONFIG}.*Permission denied"):
        train(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_number_of_classes(tiny: Config, trained: Path, tmp_path: Path) -> None:
    three = replace(tiny, generator=replace(tiny.generator, classes=3))
    with pytest.raises(ConfigError, match=r"generator.classes is 3, but .* has 2\.$"):
        train(three, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    two: Generator = replace(tiny.generator, classes=2)
    train(replace(tiny, generator=two), tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(trained))


def test_what_was_left_out_is_said(tiny: Config, images_folder: Path, tmp_path: Path) -> None:
    for path in images_folder.rglob("*.png"):
        target = tmp_path / "images" / path.relative_to(images_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "images" / "disc" / "[b]roken[&].png").write_bytes(b"no image")
    console = Console(file=io.StringIO(), width=200)
    config = replace(tiny, data=replace(tiny.data, path=str(tmp_path / "images")), steps=1)
    run.train(config, tmp_path / "run", console=console)
    assert isinstance(console.file, io.StringIO)
    assert "Left out: 1 broken (disc/[b]roken[&].png)." in console.file.getvalue()
    assert json.loads((tmp_path / "run" / provenance.NAME).read_text())["skipped"] == {"broken": 1}


# ------------------------------------------------------------------------------------------- load


@pytest.mark.parametrize("name", ["", state.NAME])
def test_load_gives_the_averaged_pair(trained: Path, name: str) -> None:
    pair = run.load(trained / name)
    assert pair.generator is not None
    for part, module in (("tokenizer_ema", pair.tokenizer), ("generator_ema", pair.generator)):
        assert same(pair.checkpoint.part(part), module.state_dict())
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())


def test_another_tokenizer_takes_the_place_of_the_runs_own(tiny: Config, trained: Path, tmp_path: Path) -> None:
    train(replace(tiny, stage=Warmup(), steps=1, seed=7), tmp_path / "other")
    own, pair = run.load(trained), run.load(trained, tokenizer=tmp_path / "other")
    assert pair.generator is not None
    assert own.generator is not None
    assert same(pair.generator.state_dict(), own.generator.state_dict())
    assert same(pair.tokenizer.state_dict(), run.load(tmp_path / "other").tokenizer.state_dict())
    assert not same(pair.tokenizer.state_dict(), own.tokenizer.state_dict())
    with pytest.raises(state.CheckpointError, match="there is no checkpoint at"):
        run.load(trained, tokenizer=tmp_path / "nowhere")


def test_load_needs_no_pretrained_network(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise AssertionError(f"{name} was asked for")

    monkeypatch.setattr(weights, "path", missing)
    assert run.load(trained).generator is not None


def test_a_warm_up_has_no_generator(tiny: Config, tmp_path: Path) -> None:
    train(replace(tiny, stage=Warmup(), steps=1), tmp_path / "run")
    assert run.load(tmp_path / "run").generator is None


def test_load_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(state.CheckpointError, match="there is no checkpoint at"):
        run.load(tmp_path)


# ------------------------------------------------------------------------------------------- tars


@pytest.mark.parametrize(("crop", "workers", "batches"), [("center", 0, Batches), ("random", 2, Streamed)])
def test_an_interrupted_run_on_tars_is_the_same_to_the_last_bit(
    tiny: Config,
    images_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    crop: Literal["center", "random"],
    workers: int,
    batches: type[Batches | Streamed],
) -> None:
    (tmp_path / "tars").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / "tars" / f"{shard}.tar", "w") as tar:
            for path in sorted(images_folder.rglob("*.png"))[shard::2]:
                key = f"{path.parent.name}-{path.stem}"
                tar.add(path, f"{key}.png")
                label = tarfile.TarInfo(f"{key}.cls")
                label.size = len(path.parent.name)
                tar.addfile(label, io.BytesIO(path.parent.name.encode()))
    data = replace(tiny.data, path=str(tmp_path / "tars"), crop=crop, workers=workers)
    config = replace(tiny, data=data, steps=5)
    train(config, tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / provenance.NAME).read_text())["classes"] == ["disc", "square"]
    batch = batches.__call__

    def stopped(self: Any, step: int) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "__call__", stopped)
        with pytest.raises(Interrupted, match="stopped at step 3 of 5"):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run")
    assert same(tensors(tmp_path / "run"), tensors(tmp_path / "whole"))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
