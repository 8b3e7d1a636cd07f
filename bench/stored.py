"""Stored features on their way to a step: what the training thread waits for, one step ahead against read when asked.

A batch of 256 with DINOv2-B's features at 256 tokens is 101 MB in rows of 393 kB, copied out of mapped files that the
page cache holds. The step is a sleep, as it is for this thread where a GPU computes. What bounds it: where the copy
takes less time than the step, the release of the memory of the last batch, which pinned memory does not need.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.table import Row
from gear.data.shards import Shape, Shards, ShardWriter
from gear.train.batches import Stored

IMAGES, TOKENS, CHANNELS, BATCH = 1000, 256, 768, 256
STEP = 0.25  # seconds; LlamaGen-L's would be 0.34 at 400 TFLOP/s, by arithmetic
STEPS = 10


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        shape = Shape(IMAGES, 1, 1, TOKENS, 16384, {"f": CHANNELS})
        writer = ShardWriter(Path(folder), {}, shape)
        for start in range(0, IMAGES, 50):
            index = np.arange(start, min(start + 50, IMAGES))
            lead = (len(index), 1, 1, TOKENS)
            codes, f = torch.randint(16384, lead), torch.randn(*lead, CHANNELS)
            writer.add(index, codes, torch.zeros(len(index), dtype=torch.long), {"f": f})
        shards, cpu = Shards(Path(folder)), torch.device("cpu")
        ours, plain = (Stored(shards, BATCH, 0, False, ["f"], None, cpu) for _ in range(2))
        assert torch.equal(ours.ahead(1).f["f"], plain.read(1).f["f"])
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for step in range(STEPS + 1):
            for name, read in (("ours", ours.ahead), ("plain", plain.read)):
                start = time.perf_counter()
                read(step)
                times[name].append((time.perf_counter() - start) * 1e3)
                time.sleep(STEP)
    t = {name: statistics.median(ms[1:]) for name, ms in times.items()}  # nothing is ahead of the first
    spread = max((max(ms[1:]) - min(ms[1:])) / statistics.median(ms[1:]) for ms in times.values())
    return [Row("stored features", "ms", t["ours"], t["plain"], 0.5, spread, "release of the last batch")]
