"""`make bench`: the benchmarks as one table, or as JSON lines with --json. The sizes are in each module.

What is done, and how long the rest may take, is told on stderr. Where a module fails, its traceback is told there, the
others run, and the table of what was measured ends with exit code 1. A missed target is marked, and is no failure.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module

from bench.asked import add_device
from bench.table import Row, machine, show


@dataclass(frozen=True)
class Module:
    """seconds: what it took on two cores. anywhere: its `run` takes the device; the others are of the CPU. asked: runs
    only where it is asked for."""

    seconds: int
    anywhere: bool = False
    asked: bool = False

    def run(self, name: str, device: str) -> list[Row]:
        run = import_module(f"bench.{name}").run
        return run(device) if self.anywhere else run()


MODULES = {  # in the order of the table
    "readout": Module(85, anywhere=True),
    "generator": Module(62, anywhere=True),
    "text": Module(45, asked=True),
    "tokenizer": Module(60, asked=True),
    "joint": Module(35, asked=True),
    "decoding": Module(10),
    "stored": Module(10),
    "frozen": Module(105),
    "engine": Module(52, anywhere=True),
    "inception": Module(35),
    "evaluation": Module(65),
    "probes": Module(30, asked=True),
    "step": Module(90),
    "sampling": Module(80),
}
USUAL = tuple(name for name, module in MODULES.items() if not module.asked)  # what ten minutes are enough for


def chosen(names: str) -> tuple[str, ...]:
    """Of a list with commas, in the order of the table."""
    asked = names.split(",")
    for name in asked:
        if name not in MODULES:
            raise argparse.ArgumentTypeError(f"there is no benchmark {name!r}: choose from {', '.join(MODULES)}.")
    return tuple(name for name in MODULES if name in asked)


def measured(names: Sequence[str], device: str, each: list[Row], as_json: bool) -> list[str]:
    """Adds to `each` what the modules measure, and gives the names of those that failed."""
    start, failed, left = time.perf_counter(), list[str](), sum(MODULES[name].seconds for name in names)
    done, pace = 0, 1.0
    for number, name in enumerate(names, 1):
        _say(f"bench {number} of {len(names)}: {name}; about {_clock((left - done) * pace)} left")
        try:
            rows = MODULES[name].run(name, device)
        except Exception:  # whatever it is, the others still run
            traceback.print_exc()
            failed.append(name)
            rows = []
        each += rows
        if as_json:
            for row in rows:
                about = {"module": name, "ratio": row.ratio, "met": row.met, "on": machine(device)}
                print(json.dumps(asdict(row) | about), flush=True)
        done += MODULES[name].seconds
        pace = (time.perf_counter() - start) / done
    _say(f"bench took {_clock(time.perf_counter() - start)}")
    return failed


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON line a row, as soon as it is measured")
    parser.add_argument(
        "--only",
        type=chosen,
        default=USUAL,
        metavar="NAME,...",
        help=f"these of {', '.join(MODULES)}; by default {', '.join(USUAL)}",
    )
    add_device(parser)
    arguments = parser.parse_args()
    rows, failed = list[Row](), list[str]()
    try:
        failed = measured(arguments.only, arguments.device, rows, arguments.json)
    finally:  # stopped, what was measured is shown
        if rows and not arguments.json:
            show(rows, f"{machine(arguments.device)}, float32 unless said")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
