"""Image files decoded ahead of the step that needs them, by other processes.

The processes are started by a fork server and not by fork: this process has threads (of torch, of CUDA), and a copy of
it may hang on a lock that one of them held. The server imports torch once (some seconds), then starts a process in a
few milliseconds. The processes know only what each request says, so nothing is copied that grows with the data set.
"""

import itertools
import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gear.data.captions import Source
from gear.data.captions import read as read_captions
from gear.data.crop import Interpolation, squares
from gear.data.decode import Skip, any_size, opened
from gear.data.images import DataError
from gear.data.members import File

log = logging.getLogger("gear")


@dataclass(frozen=True, eq=False)
class Request:
    """n images, V crops of each."""

    index: Int64[np.ndarray, "n"]  # in the listing
    paths: Sequence[File]
    places: Float64[np.ndarray, "n V 2"] | None  # of the crops, see `squares`; None: the middle
    flipped: Bool[np.ndarray, "n"]
    captions: Sequence[Source] | None = None  # of each image; None: not wanted


@dataclass(frozen=True, eq=False)
class Decoded:
    index: Int64[np.ndarray, "n"]  # as requested
    pixels: UInt8[Tensor, "n V 3 R R"]  # zero for broken images
    broken: dict[int, str]  # index -> why
    captions: list[tuple[str, ...]] | None = None  # of each image, one or more; none of broken ones

    def pin_memory(self) -> "Decoded":
        return replace(self, pixels=self.pixels.pin_memory())


class Decoder(Dataset[Decoded]):
    """`decoder[request]`."""

    def __init__(self, resolution: int, interpolation: Interpolation):
        self.resolution = resolution
        self.interpolation: Interpolation = interpolation

    def __getitem__(self, request: Request) -> Decoded:
        views = 1 if request.places is None else request.places.shape[1]
        pixels = torch.zeros(len(request.paths), views, 3, self.resolution, self.resolution, dtype=torch.uint8)
        broken: dict[int, str] = {}
        texts: list[tuple[str, ...]] = []
        with any_size():
            for row, path in enumerate(request.paths):
                places = None if request.places is None else request.places[row]
                texts.append(())
                try:
                    said = () if request.captions is None else read_captions(request.captions[row])
                    with opened(path, self.resolution) as image:
                        crops = squares(image, self.resolution, self.interpolation, places)
                except Skip as reason:
                    broken[int(request.index[row])] = str(reason)
                else:
                    pixels.numpy()[row] = crops[..., ::-1] if request.flipped[row] else crops
                    texts[row] = said
        return Decoded(request.index, pixels, broken, None if request.captions is None else texts)


class Ahead:
    """`ahead(step)` is the decoded `request(step)`. Consecutive steps below `stop` are decoded in advance; at any other
    step it starts anew. With `workers` = 0 each is decoded when it is asked for, in this process."""

    def __init__(
        self,
        decoder: Decoder,
        request: Callable[[int], Request],
        workers: int,
        pin: bool = False,
        stop: int | None = None,
    ):
        self.decoder, self.request, self.workers, self.pin, self.stop = decoder, request, workers, pin, stop
        self._coming: Iterator[Decoded] | None = None
        self._next = -1

    def __call__(self, step: int) -> Decoded:
        if not self.workers:
            return self._here(step)
        fresh = self._coming is None or step != self._next
        if fresh:
            self._coming = self._start(step)
        assert self._coming is not None
        self._next = step + 1
        try:
            return next(self._coming)
        except RuntimeError as error:  # how torch says that a process has ended
            self.close()
            if fresh:
                raise DataError(
                    f"The processes that decode images could not start ({error}). A script needs "
                    'if __name__ == "__main__": around what trains; a container may need more shared memory; '
                    "data.workers = 0 decodes in the training process."
                ) from error
            log.warning("A process that decodes images has ended (%s); others are started.", error)
            return self._here(step)

    def close(self) -> None:
        """Ends the processes. Not needed at the end of the program."""
        self._coming = None  # torch ends them when the last reference is gone

    def _here(self, step: int) -> Decoded:
        decoded = self.decoder[self.request(step)]
        return decoded.pin_memory() if self.pin else decoded

    def _start(self, step: int) -> Iterator[Decoded]:
        self.close()  # before others are started
        steps = itertools.count(step) if self.stop is None else range(step, self.stop)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more of them than cores
            loader = DataLoader(
                self.decoder,
                batch_size=None,
                sampler=map(self.request, steps),
                num_workers=self.workers,
                multiprocessing_context=_fork_server(),
                worker_init_fn=_begin,
                generator=torch.Generator(),  # else it draws a seed from the one that training depends on
                pin_memory=self.pin,
            )
            return iter(loader)


def _fork_server() -> ForkServerContext:
    """Started, if it was not. SIGUSR1, which Slurm sends to all processes of a job before its time is up, is for the
    training process; what is ignored remains so in the server and the processes that it makes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    in_main = threading.current_thread() is threading.main_thread()  # the only one that may ask for this
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN) if in_main else None
    forkserver.ensure_running()
    if in_main:
        signal.signal(signal.SIGUSR1, before)
    return context


def _begin(worker: int) -> None:
    """In a new process: Ctrl-C is for the training process, which still wants the batch of its last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_training, daemon=True).start()
    warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata, which does not matter here


def _end_with_training() -> None:
    """Else these processes and their server would keep each other alive where the training process was killed."""
    if (training := multiprocessing.parent_process()) is not None:
        training.join()
        os._exit(1)
