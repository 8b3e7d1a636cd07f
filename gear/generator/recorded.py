"""The token steps of a pass recorded once, as CUDA graphs, and replayed in every later pass: `generate(cuda_graphs=)`.

A token of one pass is some hundreds of kernels that the CPU launches one by one, which for a GPU is most of its time.
A recorded step is launched as one. Each step is a graph of its own, because it reads as many rows of the cache as there
are at its place: the kernels are those of the step that was not recorded, and so are the bits.

A graph knows addresses and not objects. `Lanes` are therefore the same memory in every pass. Made for CUDA and not yet
run on it; what is recorded and replayed has been tested on a CPU, on which each operator was recorded with its memory.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gear.generator.beginning import Begin, Begun

Work = Callable[[], None]
Record = Callable[[Work], Work]  # of work on memory that stays, what does the same again; it need not be done meanwhile


class Lanes:
    """What the token steps of a pass read and write, in memory that all passes share. b rows, N tokens.

    whole: the condition that was read, under guidance with b unconditional rows more. alone: its first b rows, the same
    memory. noise: uniform in [0, 1). tokens: those that were drawn. finite: whether all logits were.
    """

    whole: Begun
    alone: Begun

    def __init__(self, begin: Begin, guided: bool, shape: tuple[int, int], device: torch.device):
        self.begin, self.guided = begin, guided
        self.noise = torch.zeros(shape, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        self.finite = torch.tensor(True, device=device)
        self.filled = 0  # rows of the past that the condition takes; 0 before the first pass

    def fill(self, labels: Int[Tensor, "b"], noise: Float[Tensor, "b N"]) -> None:
        """For the next pass. Nothing of the one before is read by its steps."""
        self.noise.copy_(noise)
        self.finite.fill_(True)
        if not self.filled:
            self.whole = self.begin(labels, self.guided, None)
            self.alone = self.whole.first(len(labels))
            self.filled = self.whole.past[0].rows
            return
        again = self.begin(labels, self.guided, self.whole.past)
        self.whole.logits.copy_(again.logits)
        if self.whole.holds is not None and again.holds is not None:
            self.whole.holds.copy_(again.holds)

    def rows(self, guided: bool, tokens: int) -> Begun:
        """All rows or the first b, with so many tokens in their past."""
        rows = self.whole if guided else self.alone
        for past in rows.past:
            past.rows = self.filled + tokens
        return rows


class Recorded:
    """`step(i)`, which works on memory that stays: it is run in the first pass, so that whatever is set up once has
    been; recorded in the second; and replayed then and in all later ones, in the order in which it was recorded."""

    def __init__(self, step: Callable[[int], None], record: Record):
        self.step, self.record = step, record
        self.run: set[int] = set()
        self.replays: dict[int, Work] = {}

    def __call__(self, number: int) -> None:
        if number not in self.run:
            self.run.add(number)
            self.step(number)
            return
        if number not in self.replays:
            self.replays[number] = self.record(partial(self.step, number))
        self.replays[number]()


def require_cuda(device: torch.device) -> None:
    """Raises ValueError elsewhere."""
    if device.type != "cuda":
        raise ValueError(
            f"CUDA graphs need a generator on a CUDA device; this one is on {device.type}: leave them out."
        )


def graphs(device: torch.device) -> Record:
    """Records CUDA graphs, whose passing results share one pool of memory: they are replayed in the order in which they
    were recorded, never two at a time. Raises ValueError on another device."""
    require_cuda(device)
    stream, pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def record(work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        # Other threads, a data loader's among them, may go on using the GPU.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            work()
        return graph.replay

    return record
