"""Checkpoints are written behind the training and kept by policy, and a run that is killed or full goes on from one."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.lives import life
from gear import sources
from gear.config import Config
from gear.store import torch_file
from gear.train import keep, state
from gear.train.keep import Keeper
from gear.train.state import CheckpointError
from gear.update import Trained, update

ROOT = Path(__file__).parents[2]
CLASSES = ("disc", "square")


def group(on: str = "cpu") -> Trained:
    """Convolutions in channels_last, as the tokenizer's are, an average, and an optimiser that has moved."""
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3))
    module.to(on, memory_format=torch.channels_last)  # type: ignore[call-overload]
    one = Trained("tokenizer", module, torch.optim.AdamW(module.parameters(), 1e-2, fused=True), 1.0, 0.9)
    update(one(torch.randn(4, 3, 9, 9, device=on)).square().mean(), one)
    return one


def mark(one: Trained, step: float) -> list[Trained]:
    """A group whose weights tell which step they are of."""
    with torch.no_grad():
        one.module[0].bias.fill_(step)
    return [one]


def told(checkpoint: state.Checkpoint | None) -> tuple[int, float]:
    """The step by the header, and by the weights."""
    assert checkpoint is not None
    return checkpoint.step, checkpoint.tensors["tokenizer.0.bias"][3].item()


def there(run: Path) -> list[str]:
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if not path.is_dir())


def older(*steps: int) -> list[str]:
    return [f"checkpoints/step-{step:08d}.safetensors" for step in steps]


def contents(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in there(run)}


def flip(path: Path) -> None:
    """A bit of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def within(seconds: float) -> Iterator[None]:
    """Once a millisecond; too long is a failure."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.001)
    raise AssertionError(f"nothing happened in {seconds} s")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def three(tiny: Config, run: Path) -> Path:
    """A run that has been saved at steps 10, 20 and 30, all of which it has."""
    one = group()
    with Keeper(run, keep_last=3) as keeper:
        for step in (10, 20, 30):
            keeper.save(mark(one, step), step, tiny, CLASSES)
    assert there(run) == ["checkpoint.safetensors", *older(10, 20)]
    return run


# ------------------------------------------------------------------------------------------- in the background


def test_what_the_background_writes_is_what_a_save_writes(tiny: Config, run: Path) -> None:
    one, log = group(), {"sum.ntp": torch.tensor(0.5), "counts": torch.arange(16)}
    state.save(run / "at_once.safetensors", [one], 3, tiny, CLASSES, log)
    with Keeper(run, 2) as keeper:
        keeper.save([one], 3, tiny, CLASSES, log)
    mine, other = state.load(run), state.load(run / "at_once.safetensors")
    assert mine.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(t, other.tensors[key]) for key, t in mine.tensors.items())
    assert torch_file.header(mine.path) == torch_file.header(other.path)
    assert keeper.stall > 0
    assert keeper.seconds > 0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no write begins."""
    opened, write = threading.Event(), state.write

    def late(*given: object) -> None:
        assert opened.wait(60)
        write(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "write", late)
    yield opened
    opened.set()


def test_training_goes_on_while_the_state_is_written(tiny: Config, run: Path, gate: threading.Event) -> None:
    one = group()
    with Keeper(run, 2) as keeper:
        keeper.save(mark(one, 10), 10, tiny, CLASSES)
        assert there(run) == []
        mark(one, 11)
        keeper.check()
        gate.set()
        keeper.wait()
        assert told(state.newest(run)) == (10, 10)


def test_a_second_save_waits_for_the_first(
    tiny: Config, run: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, wait = group(), keep.wait

    def waits(writes: list[Future[None]]) -> object:
        time.sleep(0.2)
        gate.set()
        return wait(writes)

    with Keeper(run, 2) as keeper:
        keeper.save(mark(one, 10), 10, tiny, CLASSES)
        monkeypatch.setattr(keep, "wait", waits)
        keeper.save(mark(one, 20), 20, tiny, CLASSES)
        assert keeper.stall > 0.1
        keeper.wait()
        assert told(state.load(run)) == (20, 20)
        assert told(state.load(run / older(10)[0])) == (10, 10)


def test_leaving_waits(tiny: Config, run: Path, gate: threading.Event) -> None:
    threading.Timer(0.2, gate.set).start()
    with Keeper(run, 2) as keeper:
        keeper.save(mark(group(), 10), 10, tiny, CLASSES)
    assert told(state.newest(run)) == (10, 10)


def test_an_error_waits_too_and_goes_on_its_way(tiny: Config, run: Path, gate: threading.Event) -> None:
    threading.Timer(0.2, gate.set).start()

    def broken() -> None:
        with Keeper(run, 2) as keeper:
            keeper.save(mark(group(), 10), 10, tiny, CLASSES)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert told(state.newest(run)) == (10, 10)


def test_the_copy_is_exact_and_its_memory_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keep, "ROOM", 4096)

    def state_of(seed: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(4, 8, 5, 5, generator=g)
        return {
            "large": torch.randn(3000, generator=g),
            "channels_last": x.to(memory_format=torch.channels_last),
            "transposed": torch.randn(20, 30, generator=g).T,
            "bfloat16": x[0].bfloat16(),
            "double": x[1].double(),
            "number": torch.tensor(seed),
            "mask": x[2] > 0,
            "nothing": torch.empty(0, 3),
            "bytes": torch.arange(7, dtype=torch.uint8),
            "expanded": torch.tensor(0.5).expand(5),
        }

    copy = keep._Copy()
    copy.take(state_of(0).items())
    size = sum(len(room) for room in copy.rooms)
    assert size < 5 * 4096 + 12000  # the large one has room of its own
    for seed, more in ((1, {}), (2, {"log.sum": torch.ones(9)}), (3, {})):
        given = state_of(seed) | more
        copies = copy.take(given.items())
        assert sum(len(room) for room in copy.rooms) == size
        assert copies.keys() == given.keys()
        for key, t in given.items():
            assert copies[key].dtype == t.dtype
            assert torch.equal(copies[key], t)
            assert copies[key].is_contiguous()
        state.write(tmp_path / "a.safetensors", copies, 0, Config(), ())  # safetensors refuses tensors that overlap
        assert all(torch.equal(t, given[key]) for key, t in state.load(tmp_path / "a.safetensors").tensors.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_state_on_a_gpu(tiny: Config, run: Path) -> None:
    one = group("cuda")
    with Keeper(run, 2) as keeper:
        for step in (10, 20):
            keeper.save(mark(one, step), step, tiny, CLASSES)
            mark(one, -1)
        assert all(room.is_pinned() for room in keeper._copy.rooms)
    assert told(state.load(run)) == (20, 20)
    assert told(state.load(run / older(10)[0])) == (10, 10)


# ------------------------------------------------------------------------------------------- writes that fail


def test_a_full_disk(tiny: Config, three: Path) -> None:
    before, (soft, hard) = contents(three), resource.getrlimit(resource.RLIMIT_FSIZE)
    keeper = Keeper(three, 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # no file may grow beyond; a checkpoint is 40 kB
    try:
        keeper.save(mark(group(), 40), 40, tiny, CLASSES)
        with pytest.raises(CheckpointError, match=r"step 40 .*too large.* is intact; free some space"):
            keeper.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(three) == before
    keeper.wait()  # it has told
    keeper.save(mark(group(), 50), 50, tiny, CLASSES)  # and can go on
    keeper.wait()
    assert there(three) == ["checkpoint.safetensors", *older(20, 30)]


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    code = f"""
os.chdir({str(tmp_path)!r})
os.chmod(".", 0o755)  # by a relative path the other user needs this folder only, not those above
run = Path("run")
one = group(4)
with keep.Keeper(run, 2) as keeper:
    keeper.save(one, 1, Config(), ())
os.chmod("run", 0o555)
if os.getuid() == 0:  # who may write anywhere
    os.setuid(65534)
keeper = keep.Keeper(run, 2)
keeper.save(one, 2, Config(), ())
try:
    keeper.wait()
except state.CheckpointError as error:
    print(error)
print(sorted(os.listdir(run)), state.newest(run).step)
"""
    said = child(code).communicate(timeout=120)[0].splitlines()
    assert "the checkpoint of step 2 (0 MiB) could not be written to run: " in said[0]
    assert "ermission denied" in said[0]
    assert "is intact" in said[0]
    assert said[1] == "['checkpoint.safetensors'] 1"


def test_a_file_where_the_older_ones_should_be(tiny: Config, run: Path) -> None:
    one = group()
    with Keeper(run, 2) as keeper:
        keeper.save(mark(one, 10), 10, tiny, CLASSES)
        keeper.wait()
        (run / "checkpoints").write_text("mine")
        before = contents(run)
        keeper.save(mark(one, 20), 20, tiny, CLASSES)
        with pytest.raises(CheckpointError, match=r"step 20 .*checkpoints.* is intact"):
            keeper.wait()
    assert contents(run) == before


def test_diverged_weights_are_told_by_the_next_save(tiny: Config, three: Path) -> None:
    before = contents(three)
    with Keeper(three, 3) as keeper:
        keeper.save(mark(group(), torch.nan), 40, tiny, CLASSES)
        with pytest.raises(CheckpointError, match=r"at step 40 tokenizer.0.bias is not finite.* is intact"):
            keeper.save(mark(group(), 50), 50, tiny, CLASSES)
    assert contents(three) == before


def test_a_failure_is_noticed_between_saves(tiny: Config, run: Path) -> None:
    with Keeper(run, 2) as keeper:
        keeper.check()
        keeper.save(mark(group(), torch.inf), 10, tiny, CLASSES)
        for _ in within(60):
            if keeper.failed:
                break
        with pytest.raises(CheckpointError, match="diverged"):
            keeper.check()
        keeper.check()
        assert not keeper.failed
    with pytest.raises(CheckpointError, match="diverged"), Keeper(run, 2) as keeper:
        keeper.save(mark(group(), torch.inf), 10, tiny, CLASSES)


def test_a_failure_hides_no_other(tiny: Config, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        with Keeper(run, 2) as keeper:
            keeper.save(mark(group(), torch.inf), 10, tiny, CLASSES)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert "training has diverged: at step 10" in caplog.text


# ------------------------------------------------------------------------------------------- which are kept


@pytest.mark.parametrize(("last", "every"), [(1, None), (2, None), (3, 50), (1, 20), (30, None)])
def test_twenty_saves(tiny: Config, run: Path, last: int, every: int | None) -> None:
    one, wanted = group(), list[int]()
    with Keeper(run, last, every) as keeper:
        for step in range(10, 210, 10):
            keeper.save(mark(one, step), step, tiny, CLASSES)
            keeper.wait()
            wanted = [s for s in range(10, step, 10) if s > step - 10 * last or (every and s % every == 0)]
            assert there(run) == ["checkpoint.safetensors", *older(*wanted)]
    assert told(state.load(run / state.NAME)) == (200, 200)
    assert all(told(state.load(run / older(s)[0])) == (s, s) for s in wanted)
    assert (run / "checkpoints").exists() == bool(wanted)


def test_files_of_others_stay(tiny: Config, three: Path) -> None:
    names = [f"checkpoints/{name}" for name in ("best.safetensors", "step-7.txt", "step-x.safetensors", "notes")]
    for name in names:
        (three / name).write_text("mine")
    with Keeper(three, 1) as keeper:
        keeper.save(mark(group(), 40), 40, tiny, CLASSES)
    assert there(three) == sorted(["checkpoint.safetensors", *names])


def test_training_that_was_set_back(tiny: Config, three: Path) -> None:
    """Checkpoints of steps that lie ahead again are not counted among the last, and written anew when they come."""
    flip(three / state.NAME)
    flip(three / older(20)[0])
    found = state.newest(three)
    assert told(found) == (10, 10)
    one = group()
    with Keeper(three, 2, keep_every=20) as keeper:
        keeper.save(mark(one, 15), 15, tiny, CLASSES)
        keeper.wait()
        assert there(three) == ["checkpoint.safetensors", *older(10, 20)]
        assert told(state.newest(three)) == (15, 15)
        for step in (20, 25):
            keeper.save(mark(one, step), step, tiny, CLASSES)
    assert there(three) == ["checkpoint.safetensors", *older(20)]
    assert told(state.load(three / older(20)[0])) == (20, 20)


def test_a_newest_that_tells_no_step_is_replaced(tiny: Config, three: Path) -> None:
    (three / state.NAME).write_bytes(b"garbage")
    with Keeper(three, 3) as keeper:
        keeper.save(mark(group(), 40), 40, tiny, CLASSES)
    assert there(three) == ["checkpoint.safetensors", *older(10, 20)]
    assert told(state.newest(three)) == (40, 40)


def test_a_file_system_without_links(tiny: Config, three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with Keeper(three, 2) as keeper:
        keeper.save(mark(group(), 40), 40, tiny, CLASSES)
    assert there(three) == ["checkpoint.safetensors", *older(30)]
    assert told(state.load(three / older(30)[0])) == (30, 30)
    assert told(state.newest(three)) == (40, 40)


def test_what_a_killed_process_left_is_removed(three: Path) -> None:
    left = [
        ".checkpoint.safetensors.0123abcd.partial",
        "..checkpoint.safetensors.0123abcd.partial.4567cdef.partial",
        "checkpoints/.step-00000020.safetensors.0123abcd.partial",
        "checkpoints/.tmpA1b2C3",
        ".log.jsonl.0123abcd.partial",
    ]
    stays = [
        "checkpoint.partial",
        ".checkpoint.safetensors",
        "checkpoints/notes.partial",
    ]
    for name in left + stays:
        (three / name).write_bytes(b"half")
    before = there(three)
    Keeper(three, 3)
    assert there(three) == sorted(set(before) - set(left))


# ------------------------------------------------------------------------------------------- killed

CHILD = """
import os, shutil, sys
from pathlib import Path
import torch
from torch import nn
from gear.config import Config
from gear.train import keep, state
from gear.update import Trained

def group(width, fill=1.0):
    net = nn.Linear(width, 4096)
    nn.init.uniform_(net.weight)
    nn.init.constant_(net.bias, fill)
    return [Trained("tokenizer", net, torch.optim.AdamW(net.parameters(), fused=True), 1.0, None)]
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."})


DYING = """
base, links = Path(sys.argv[1]), sys.argv[2] == "links"
groups = {step: group(4, step) for step in (1, 2, 3)}  # here, once: torch's first optimiser takes seconds

def saves(run, step, fatal):
    # In a process of its own, which dies just before it touches the run folder for the `fatal`-th time.
    if (pid := os.fork()) > 0:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    touched = 0
    def hook(event, arguments):
        nonlocal touched
        if any(str(argument).startswith(str(run)) for argument in arguments):
            touched += 1
            if touched == fatal:
                os._exit(9)
    if not links:
        def refuse(*_): raise PermissionError(1, "Operation not permitted")
        os.link = refuse
    keeper = keep.Keeper(run, 2)
    sys.addaudithook(hook)
    keeper.save(groups[step], step, Config(), ())
    keeper.wait()
    os._exit(0)

assert [saves(base, step, None) for step in (1, 2)] == [0, 0]
fatal, code, steps = 0, 9, []
while code == 9:
    fatal += 1
    run = base.with_name(f"killed{fatal}")
    shutil.copytree(base, run)
    code = saves(run, 3, fatal)
    found = state.newest(run)
    assert found.step == found.tensors["tokenizer.bias"][0]
    steps.append(found.step)
    assert saves(run, 3, None) == 0
    assert state.newest(run).step == 3
    assert state.load(run / "checkpoints" / "step-00000002.safetensors").step == 2
    names = sorted(path.name for path in run.rglob("*") if path.is_file())
    assert names == ["checkpoint.safetensors", "step-00000002.safetensors"], (fatal, names)
assert code == 0, code
print(*steps)
"""


@pytest.mark.parametrize("links", ["links", "renaming"])
def test_killed_between_any_two_operations(tmp_path: Path, links: str) -> None:
    """Always the checkpoint before or the new one, whole, and the next save brings everything in order."""
    (tmp_path / "run").mkdir()
    process = child(DYING, tmp_path / "run", links)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    steps = [int(word) for word in said.split()]
    assert len(steps) > 12
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


def test_killed_in_the_middle_of_a_write(run: Path, tmp_path: Path) -> None:
    """Of one of many, the first of which is whole."""
    code = """
one = group(8192)
keeper = keep.Keeper(Path(sys.argv[1]), 1)
for step in range(1, 100_000):
    nn.init.constant_(one[0].module.bias, step)
    keeper.save(one, step, Config(), ())
    keeper.wait()
"""

    def left() -> list[Path]:
        return [path for path in run.iterdir() if path.name.endswith(".partial")]

    def writes() -> bool:
        return (run / state.NAME).exists() and bool(left())

    with life([sys.executable, "-c", CHILD + code, str(run)], run, tmp_path / "said.txt", PYTHONPATH=".") as here:
        while here.until(writes) and not here.held(writes):
            pass
    assert left()  # it was in the middle
    assert [path.name for path in state.candidates(run)] == [state.NAME]
    found = state.newest(run)
    assert found is not None
    assert found.tensors["tokenizer.bias"][3] == found.step
    assert found.tensors["tokenizer.weight"].nbytes == 2**27
    Keeper(run, 2)
    assert there(run) == [state.NAME]


# ------------------------------------------------------------------------------------------- the newest


def test_no_checkpoint(run: Path) -> None:
    assert state.newest(run) is None
    assert state.newest(run / "nowhere") is None
    (run / "config.json").write_text("{}")
    (run / ".checkpoint.safetensors.0123abcd.partial").write_bytes(b"half")
    (run / "checkpoints" / "step-00000010.safetensors").mkdir(parents=True)
    assert state.newest(run) is None


def test_the_order_is_that_of_the_steps(three: Path) -> None:
    """Not of the files' times, nor of names that are not true."""
    for time_of, name in zip((1e9, 3e9, 2e9), ("checkpoint.safetensors", *older(10, 20)), strict=True):
        os.utime(three / name, (time_of, time_of))
    assert told(state.newest(three)) == (30, 30)
    (three / state.NAME).rename(three / older(15)[0])
    (three / older(20)[0]).rename(three / "checkpoints" / "kept by hand.safetensors")
    assert [state.load(path).step for path in state.candidates(three)] == [30, 20, 10]
    assert told(state.newest(three)) == (30, 30)
    (three / older(10)[0]).rename(three / state.NAME)
    assert told(state.newest(three)) == (30, 30)


def test_a_damaged_one_is_named_and_the_one_before_taken(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gear"):
        assert told(state.newest(three)) == (30, 30)
        assert caplog.text == ""
        flip(three / state.NAME)
        assert told(state.newest(three)) == (20, 20)
    assert f"{three / state.NAME} is damaged: its tokenizer_optimizer" in caplog.text
    (three / older(20)[0]).write_bytes((three / older(20)[0]).read_bytes()[:-1])
    assert told(state.load(three)) == (10, 10)
    assert f"{three / older(20)[0]} is not a whole safetensors file" in caplog.text
    flip(three / older(10)[0])
    with pytest.raises(CheckpointError) as error:
        state.newest(three)
    assert all(str(three / name) in str(error.value) for name in there(three))
    assert str(error.value).endswith(f"Delete {three} to start anew.")


def test_only_the_parts_that_are_asked_for_must_be_whole(three: Path) -> None:
    flip(three / state.NAME)  # a moment of the optimiser
    for find in (state.load, state.newest):
        found = find(three, ("tokenizer", "tokenizer_ema"))
        assert told(found) == (30, 30)
        assert found is not None
        assert {key.split(".")[0] for key in found.tensors} == {"tokenizer", "tokenizer_ema"}


def test_what_is_no_checkpoint(three: Path) -> None:
    """Beside the newest, before it in the order or behind."""
    folder = three / "checkpoints"
    (folder / "step-00000040.safetensors").write_bytes(b"garbage" * 100)
    (folder / "step-00000041.safetensors").touch()
    (folder / "step-00000042.safetensors").mkdir()
    (folder / "step-00000043.safetensors").symlink_to(folder / "nowhere")
    (folder / "step-00000044.safetensors").symlink_to(folder / "step-00000044.safetensors")
    os.mkfifo(folder / "step-00000045.safetensors")
    (folder / "notes.safetensors").write_text("garbage")
    (folder / ".step-00000046.safetensors.0123abcd.partial").write_bytes(b"half")
    (folder / "sub" / "checkpoints").mkdir(parents=True)
    shutil.copy(three / older(20)[0], folder / "sub" / state.NAME)
    (folder / "step-00000047.safetensors").write_bytes((three / state.NAME).read_bytes())
    (folder / "step-00000047.safetensors").chmod(0)
    assert told(state.newest(three)) == (30, 30)
    (three / state.NAME).unlink()
    (folder / "step-00000047.safetensors").unlink()
    assert told(state.newest(three)) == (20, 20)
    shutil.rmtree(folder)
    (three / state.NAME).symlink_to(folder / "nowhere")
    with pytest.raises(CheckpointError, match="none of the checkpoints"):
        state.newest(three)


def test_a_run_whose_newest_is_damaged_is_still_of_use(three: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To whatever takes a run for its weights, as `gear sample` does."""
    assert sources.file_of(str(three)) == three / state.NAME
    (three / state.NAME).write_bytes((three / state.NAME).read_bytes()[:-1])
    found = sources.read(str(three))
    assert found.path == three / older(20)[0]
    assert told(found) == (20, 20)
    assert f"{three / state.NAME} is not a whole safetensors file" in caplog.text
    assert sources.file_of(str(three)) == three / older(20)[0]
    assert sources.file_of(str(three / "checkpoints" / "..")).samefile(three / older(20)[0])
    assert sources.file_of(str(three.parent)) == three.parent
