"""`gear figure`: the paper's figures from the files of runs."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def figure(
    which: Positional[Literal["1", "3", "4", "5", "cfg", "report"]],
    runs: Positional[tuple[Path, ...]],
    /,
    out: Path = Path("figures"),
    labels: tuple[str, ...] = (),
    baseline: str | None = None,
) -> None:
    """Draw a figure of the paper from the files of one run or several: PDF, PNG and the caption as text.

    1: gFID against steps and over sizes. 3: losses. 4: codebook usage. 5: layers of the generator against the target.

    cfg: a sweep of the guidance scale. report: one HTML page of everything that the runs have.

    Args:
        which: The figure.
        runs: Run folders, folders of runs, or results.json and probe.json files.
        out: Folder for the files.
        labels: Names in the legend, one for each run; by default the folders'.
        baseline: Name of the run that speed-ups are against; by default the first on a frozen tokenizer.
    """
    from gear.figures.paper import convergence, depth, dynamics, page, style, sweep, usage
    from gear.figures.paper.found import opened

    found = opened(runs, labels)
    names = [run.name for run in found]
    if baseline is not None and baseline not in names:
        raise ValueError(f"--baseline {baseline} is none of the runs, which are {', '.join(names)}.")
    draw = {
        "1": lambda: convergence.draw(found, baseline),
        "3": lambda: dynamics.draw(found, baseline),
        "4": lambda: usage.draw(found),
        "5": lambda: depth.draw(found),
        "cfg": lambda: sweep.draw(found),
    }
    with style.look():
        if which == "report":
            page.write(found, baseline, out / "report.html")
            print(out / "report.html")
            return
        drawing = draw[which]()
        files = style.save(drawing, out)
    print("\n".join((drawing.caption, *drawing.lacking, *map(str, files))))
