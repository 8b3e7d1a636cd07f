"""The processes of a run: torchrun (or srun) starts them, this joins them. One process needs no launcher."""

import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from gear import ranks
from gear.config import Config, ConfigError

PATIENCE = timedelta(minutes=10)  # with a collective operation of training; a rank that died is noticed at once
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LONG = timedelta(days=1)  # with what one rank does while the others wait: decoding a data set, fetching weights

_hosts: dist.ProcessGroup | None = None  # by gloo: what the hosts tell each other, apart from the step's own traffic


class PeerLost(RuntimeError):
    """Another process of the run has ended; what it said is the reason."""


@dataclass(frozen=True)
class Launch:
    """What the launcher says of this process."""

    rank: int
    size: int
    local: int  # rank on this machine, hence its GPU


def launch() -> Launch:
    """Of torchrun, or of whatever sets the same variables; (0, 1, 0) without."""
    e = os.environ
    if "RANK" in e and "WORLD_SIZE" in e:
        return Launch(int(e["RANK"]), int(e["WORLD_SIZE"]), int(e.get("LOCAL_RANK", "0")))
    return Launch(0, 1, 0)


@contextmanager
def joined(on: torch.device) -> Iterator[None]:
    """Within the block, the processes are one group; on CPUs by gloo, on GPUs by NCCL with gloo beside it. Without a
    launcher, or in a block within the block, nothing happens. Raises `PeerLost` where another one has ended."""
    global _hosts
    here = launch()
    if here.size == 1 or dist.is_initialized():
        yield
        return
    _end_with_launcher()
    backend = "cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE, rank=here.rank, world_size=here.size)
    try:
        hosts = dist.new_group(backend="gloo", timeout=LONG)
        assert isinstance(hosts, dist.ProcessGroup)
        _hosts = hosts
        yield
        gc.collect()  # reducers must not outlive the group
        dist.barrier(_hosts)
    except RuntimeError as error:
        if _of_a_connection(error):
            why = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]  # gloo begins with a place in its source
            raise PeerLost(f"ends because another process of the run has ended ({why}).") from error
        raise
    _hosts = None
    dist.destroy_process_group()


def _of_a_connection(error: RuntimeError) -> bool:
    network = isinstance(error, dist.DistBackendError | dist.DistNetworkError)
    return network or any(
        word in str(error) for word in ("Connection closed by peer", "Connection reset", "Gloo", "gloo")
    )


def _end_with_launcher() -> None:
    """Where torchrun is killed, Linux kills what it has started: else its processes would train on, hold the run's
    folder, and the same command be refused."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def own_device(on: torch.device) -> torch.device:
    """This process's share of the machine: the GPU of its number. Raises ValueError where there are too few."""
    here = launch()
    if on.type != "cuda" or here.size == 1:
        return on
    if here.local >= torch.cuda.device_count():
        raise ValueError(
            f"process {here.local} of this machine has no GPU: torch sees {torch.cuda.device_count()}. Start as many "
            "processes as there are GPUs (torchrun --nproc-per-node)."
        )
    torch.cuda.set_device(here.local)
    return torch.device("cuda", here.local)


def check_share(config: Config) -> None:
    """Raises `ConfigError` unless every process, and every part of its share, gets as many images."""
    size, parts = launch().size, config.engine.accumulate
    if config.batch % (each := size * parts):
        nearest = max(each, round(config.batch / each) * each)
        raise ConfigError(
            f"batch must be a multiple of {each} ({size} processes, each with engine.accumulate = {parts} parts); it "
            f"is {config.batch} (the nearest is {nearest})."
        )


@contextmanager
def first_here() -> Iterator[None]:
    """The first process of each machine does what is in the block, then the others: it fills a cache that they find."""
    if launch().local and _hosts is not None:
        dist.barrier(_hosts)
    yield
    if not launch().local and _hosts is not None:
        dist.barrier(_hosts)
    together()


def together() -> None:
    """Waits for all ranks, however long what one of them does takes."""
    if _hosts is not None:
        dist.barrier(_hosts)


def told(value: Any, by: int = 0) -> Any:
    """Rank `by`'s value, on every rank: whatever JSON has."""
    if _hosts is None:
        return value
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor([len(data)])
    dist.broadcast(length, by, group=_hosts)
    data = data if ranks.rank() == by else torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(data, by, group=_hosts)
    return json.loads(data.numpy().tobytes())


def everyones(value: Any) -> list[Any]:
    """The value of every rank, in their order, on every rank; as `told`."""
    return [told(value, rank) for rank in range(ranks.size())]


class Agreement:
    """Whether any rank asks to stop. Each says so at every step and hears at the next one, so that nobody waits; all
    ranks therefore stop after the same step."""

    def __init__(self) -> None:
        self._asked: tuple[torch.Tensor, Any] | None = None

    def stop(self, asked: bool) -> bool:
        """One rank alone stops at once. Of several, all stop one step after the first of them asked."""
        if _hosts is None:
            return asked
        heard = self.end()
        if not heard:
            flag = torch.tensor([float(asked)])
            self._asked = flag, dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=_hosts, async_op=True)
        return heard

    def end(self) -> bool:
        """Hears what is still on its way."""
        if self._asked is None:
            return False
        flag, work = self._asked
        self._asked = None
        work.wait()
        return bool(flag.item())
