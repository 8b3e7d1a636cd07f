"""One rank of the loop over a step made of one matrix, for `test_loop_of_ranks`.

loop_worker.py RUN STEPS FROM TO        the gradients of steps FROM to TO - 1 are not finite
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from gear import ranks
from gear.config import Config, Guards, Watch
from gear.step import Batch, Step
from gear.train import distributed, loop
from gear.train.stopping import Interrupted
from gear.update import Trained, update

CPU, B = torch.device("cpu"), 4
CONFIG = replace(Config(), batch=B, precision="float32", log_every=4, save_every=5, guards=Guards(skip_limit=5))


class Batches:
    """Half of the images of step 3 are broken; each rank finds those of its rows."""

    def __init__(self, spoiled: range, stop: int):
        self.spoiled, self.stop, self.broken = spoiled, stop, dict[int, str]()

    def __call__(self, step: int) -> Batch:
        x = torch.randn(B, 3, 2, 2, generator=torch.Generator().manual_seed(step))
        mine = ranks.share(B)
        if step == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)
        if step == 3:
            self.broken.update({i: "broken" for i in range(mine.start, mine.stop) if i % 2})
        return Batch(
            x[mine] + (torch.nan if step in self.spoiled else 0.0), torch.zeros(B, dtype=torch.int64)[mine], {}
        )


def main(run: str, stop: str, *spoiled: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 4)
    with distributed.joined(CPU):
        group = Trained("tokenizer", module, torch.optim.AdamW(module.parameters(), 1e-2, fused=True), 1.0, 0.9)
        if ranks.size() > 1:
            group.replicate()

        def step(batch: Batch) -> Step:
            loss = (group(batch.x[:, 0].flatten(1)) - 1).square().mean()
            return Step({"ntp": loss.detach()} | update(loss, group), torch.ones(4))

        watch = Watch(sample_every=0, evaluate_every=0, trackers=())
        config, batches = replace(CONFIG, steps=12, watch=watch), Batches(range(*map(int, spoiled)), int(stop))
        Path(run).mkdir(exist_ok=True)
        try:
            loop.fit(config, Path(run), (group,), step, batches, ("a",), CPU, "run", Console(quiet=True))
        except loop.Diverged as error:
            os.write(1, f"rank {ranks.rank()} {error}\n".encode())  # in one piece, beside the other ranks'
        except Interrupted:
            pass
        group.alone()


if __name__ == "__main__":
    main(*sys.argv[1:])
