"""`gear evidence`: the arms of RESULTS.md, trained and measured again, or with other seeds."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def evidence(
    what: Positional[Literal["run", "list", "pilot", "pace", "write"]] = "run",
    /,
    scale: Literal["cpu", "gpu"] = "cpu",
    only: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    out: Path = Path("runs/evidence"),
    results: Path = Path("evidence"),
    report: Path | None = None,
    device: str = "auto",
) -> None:
    """Test the paper's findings at a scale anyone can rerun, arm by arm; RESULTS.md says which, and what came of it.

    Interrupted, the same command goes on. Several terminals may give it at once: they share the arms.

    run: train and measure what has no result yet. list: the arms by name, and what is left.

    write: bring RESULTS.md and its figures up to date. pilot, pace: what was decided beforehand; seconds a step.

    Args:
        what: What to do.
        scale: Of the networks: for a laptop's night, or for a GPU.
        only: Names of arms to run or list; none: all. What they start from is trained, too.
        seeds: Of the repetitions to run, list or write of; by default the protocol's, each for the
            claims that it was announced for.
        out: Folder of the runs.
        results: Folder of the results, a file for each arm and seed.
        report: The file to bring up to date, made if it is not there; by default RESULTS.md, and of another scale or
            of other seeds RESULTS-gpu.md, RESULTS-cpu-7-8-9.md; of results in another folder, in it.
        device: Where to run.
    """
    from rich.console import Console

    from gear import build
    from gear.config import Config, ConfigError
    from gear.evidence import pace, pilot, queue, writing
    from gear.evidence.results import HERE
    from gear.evidence.scales import SCALES

    if only and what not in ("run", "list"):
        raise ConfigError(f"gear evidence {what} is of all arms: leave --only out.")
    if seeds and what in ("pilot", "pace"):
        raise ConfigError(f"gear evidence {what} has a seed of its own: leave --seeds out.")
    chosen, console = SCALES[scale], Console()
    without_gpu = device == "auto" and build.device(Config()).type == "cpu"
    if scale == "gpu" and without_gpu and what in ("run", "pilot", "pace"):
        raise ConfigError(
            "scale gpu is for a GPU, and torch sees none: leave --scale out, or give --device cpu, which takes days."
        )
    match what:
        case "run":
            queue.Queue(chosen, out, results, device, console).work(queue.jobs(chosen, only, seeds))
            more = f" --seeds {' '.join(map(str, seeds))}" if seeds else ""
            more += f" --results {results}" if results != HERE else ""
            print(f"next: gear evidence write --scale {scale}{more}")
        case "list":
            queue.show(queue.jobs(chosen, only, seeds), chosen, results, console)
        case "pilot":
            print(pilot.pilot(chosen, out, results, device, console))
        case "pace":
            print(pace.pace(chosen, results, device))
        case "write":
            repeated = replace(chosen, seeds=seeds or chosen.seeds)
            print(*writing.write(repeated, results, report or writing.report(repeated, results)), sep="\n")
