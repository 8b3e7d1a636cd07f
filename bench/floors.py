"""For each hot path: what it must do, how long that takes at least on this machine, and how long it takes.

    python -m bench.floors                                                # gear-b at 128 px, 4 images, on the CPU
    python -m bench.floors --precision bfloat16 --json                    # a JSON line a row
    python -m bench.floors --device cuda --recipe gear-l --resolution 256 --batch 32 --precision bfloat16

The paths and their formulas are in `bench.paths`, what is counted in `bench.work`, the ceilings in `bench.ceilings`:
products, exponentials and bytes are taken to overlap wholly, so a floor is never too high, and no path reaches it.
The floor of the joint step is that of its parts one after the other. Beside the steps: the FID Inception (of random
weights where its own are not on this machine) over ready tensors, and JPEG files decoded and cropped by one core, which
nobody has counted. Seconds are medians of a few runs. Networks and images are random; nothing is read from anywhere.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench import decoding, inception
from bench.asked import add_device, count
from bench.ceilings import ceilings
from bench.joint import SMALL, Case
from bench.paths import Path, Setting, others, parts, setting
from bench.table import machine
from bench.work import Work, counted
from gear.data.ahead import Decoder
from gear.data.folder import scan
from gear.evaluate.inception import SIDE
from gear.progress import bars
from gear.recipes import RECIPES

FEATURES, PHOTOS = 8, 24  # images of a batch of the Inception; JPEG files


@dataclass(frozen=True)
class Gap:
    """One row. floor, seconds: of one `path`; floor: None where nobody counted. bound: what the floor is made of."""

    path: str
    work: Work
    floor: float | None
    seconds: float
    bound: str

    @property
    def share(self) -> float | None:
        """Of the time, that could not be saved."""
        return None if self.floor is None else self.floor / self.seconds


def measured(path: Path, device: str) -> Gap:
    path.before()
    work = path.work
    if work is None:
        work = counted(path.run)
    elif path.times > 1:
        path.run()  # the slow start
    seconds = []
    for _ in range(path.times):
        path.before()
        _wait(device)
        start = time.perf_counter()
        path.run()
        _wait(device)
        seconds.append((time.perf_counter() - start) / path.per)
    path.before()
    each = (work, *path.after)
    bound = max(each, key=lambda w: w.seconds(device)).bound(device)
    return Gap(path.name, sum(each, Work()), sum(w.seconds(device) for w in each), statistics.median(seconds), bound)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def joint(s: Setting, of_parts: Sequence[Gap]) -> list[Gap]:
    """The sum of its parts, and the step itself."""

    def run() -> None:
        with s.autocast():
            s.training.step(s.batch)

    work = sum((gap.work for gap in of_parts), Work())
    floor = sum(gap.floor or 0.0 for gap in of_parts)
    bound = max(of_parts, key=lambda gap: gap.floor or 0.0).bound
    whole = measured(Path("joint step", run, work=work), s.case.device)
    total = Gap("sum of parts", work, floor, sum(gap.seconds for gap in of_parts), bound)
    return [total, Gap("joint step", work, floor, whole.seconds, bound)]


def features(device: str) -> Gap:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        net = inception.network(File(folder)).net.to(device)
        x = torch.rand(FEATURES, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            return measured(Path(f"FID Inception, {FEATURES} images", lambda: net(x)), device)


def data() -> Gap:
    with tempfile.TemporaryDirectory() as folder:
        file = File(folder) / "class" / "0.jpg"
        file.parent.mkdir()
        decoding.photograph(0).save(file, quality=90)
        listing, decoder = scan(File(folder)), Decoder(decoding.R, "bicubic")
        request = decoding.request(listing, np.random.default_rng(0).random((1, 1, 2)))
        gap = measured(
            Path("a JPEG, decoded, cropped", lambda: [decoder[request] for _ in range(PHOTOS)], per=PHOTOS), "cpu"
        )
    return Gap(gap.path, Work(), None, gap.seconds, "Pillow, one core")


def run(s: Setting, console: Console | None = None) -> list[Gap]:
    device = s.case.device
    of_step, rest = parts(s), others(s)
    with bars(console or Console(stderr=True)) as bar:
        task = bar.add_task("floors", total=len(of_step) + len(rest) + 4, note="ceilings")
        ceilings(device)

        def each(paths: Sequence[Path]) -> list[Gap]:
            found = []
            for path in paths:
                bar.update(task, advance=1, note=path.name)
                found.append(measured(path, device))
            return found

        gaps = each(of_step)
        bar.update(task, advance=1, note="joint step")
        gaps += joint(s, gaps)
        gaps += each(rest)
        bar.update(task, advance=1, note="FID Inception")
        gaps.append(features(device))
        bar.update(task, advance=1, note="JPEG files")
        gaps.append(data())
        bar.update(task, advance=1, note="")
    return gaps


def show(gaps: Sequence[Gap], title: str) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("path")
    for column in ("TFLOP", "GB", "floor s", "takes s", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("bound by")
    for gap in gaps:
        whole = gap.floor is not None
        counts = (f"{gap.work.flops.total / 1e12:.3g}", f"{gap.work.moved / 1e9:.3g}") if whole else ("", "")
        floor, share = (f"{gap.floor:.3g}", f"{gap.share:.0%}") if whole else ("", "")
        table.add_row(gap.path, *counts, floor, f"{gap.seconds:.3g}", share, gap.bound)
    Console().print(table)


def as_json(gap: Gap, case: Case) -> dict[str, Any]:
    return asdict(case) | asdict(gap) | {"share": gap.share, "on": machine(case.device)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.floors", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default=SMALL.recipe, choices=sorted(RECIPES), metavar="RECIPE")
    parser.add_argument("--resolution", type=count, default=SMALL.resolution)
    parser.add_argument("--batch", type=count, default=SMALL.batch)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=SMALL.precision)
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    a = parser.parse_args()
    case = Case(a.recipe, a.resolution, a.batch, a.precision, a.device)
    try:
        made = setting(case)
    except ValueError as error:
        parser.error(str(error))
    gaps = run(made)
    if a.json:
        print("\n".join(json.dumps(as_json(gap, case)) for gap in gaps))
        return
    at = ceilings(a.device)
    speeds = f"{at.float32 / 1e9:,.0f} and {at.bfloat16 / 1e9:,.0f} GFLOP/s in float32 and bfloat16"
    reached = f"{speeds}, {at.bandwidth / 1e9:,.0f} GB/s, {at.exponentials / 1e9:.3g} G exponentials/s"
    what = f"{a.recipe}, {a.resolution} px, {a.batch} images, {a.precision}"
    show(gaps, f"{machine(a.device)}\n{reached}\n{what}")


if __name__ == "__main__":
    main()
