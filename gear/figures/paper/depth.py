"""Figure 5: the generator's states against the target, layer by layer, from probe.json: CKNNA and CKA of images (a, b),
Moran's I (c), CKNNA and CKA of patches (d, e), the ratio of high frequencies (f)."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gear.figures.paper.found import NothingToDraw, Run
from gear.figures.paper.labels import LONG, in_full, labels, short
from gear.figures.paper.result import Result, finite, listed, mapping
from gear.figures.paper.style import QUIET, RULE, TEXT, Drawing, empty, legend, line, marked, panels, plot, title

PANELS = (  # part of the probe, path to the value within a layer, title
    ("similarity", ("image", "cknna"), "CKNNA, image"),
    ("similarity", ("image", "cka"), "CKA, image"),
    ("spatial", ("moran",), "Moran's I"),
    ("similarity", ("patch", "cknna"), "CKNNA, patch"),
    ("similarity", ("patch", "cka"), "CKA, patch"),
    ("spatial", ("fft_high",), "FFT high-frequency ratio"),
)
PARTS = ("similarity", "spatial")
Profile = list[tuple[int, float, float | None]]  # layer, mean, standard deviation


def draw(runs: Sequence[Run]) -> Drawing:
    """Of each run its latest probe. Raises `NothingToDraw` where none has one of a generator."""
    lacking = [run.lacks("layers", "probe of its layers") for run in runs if not latest(run)]
    runs = [run for run in runs if latest(run)] or runs
    probes = [latest(run) for run in runs]
    profiles = [[profile(probe, part, path) for probe in probes] for part, path, _ in PANELS]
    if not any(points for panel in profiles for points in panel):
        raise NothingToDraw(" ".join(run.lacks("layers", "probe of a generator's layers") for run in runs))
    names = labels(runs)
    figure, axes = panels(2, 3, TEXT, 3.9)
    taps = sorted({run.tap for run, probe in zip(runs, probes, strict=True) if probe and run.tap is not None})
    for ax, letter, (part, path, name), panel in zip(axes, "abcdef", PANELS, profiles, strict=True):
        title(ax, letter, name)
        if not any(panel):
            empty(ax, "not probed")
            continue
        for i, (run, points) in enumerate(zip(runs, panel, strict=True)):
            _profile(ax, i, names[run.name], points)
        for tap in taps:
            which = f"aligned layer ({', '.join(map(str, taps))})"
            ax.axvspan(tap - 0.4, tap + 0.4, color=RULE, lw=0, zorder=0, label=which)
        levels = {value for probe in probes if probe and (value := target(probe, part, path)) is not None}
        for value in sorted(levels):
            ax.axhline(value, color=QUIET, ls=(0, (4, 2)), lw=1.1, label=short(_named(probes), 2 * LONG), zorder=1.5)
        ax.set_xlabel("layer of the generator")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, axes[2:] + axes[:2])
    return Drawing(
        "figure5",
        figure,
        f"{_caption(probes, taps)} {_over(runs, probes, names)} {in_full(names)}".strip(),
        tuple(lacking),
    )


def latest(run: Run) -> Result | None:
    """Its probe with the most steps that has a generator's layers."""
    kept = [p for p in run.of("probe") if any(layers(p, part) for part in PARTS)]
    return kept[-1] if kept else None


def layers(probe: Result, part: str) -> list[Mapping[str, Any]]:
    entries = listed(mapping(probe.whole.get(part)).get("generator"))
    return [entry for entry in entries if isinstance(entry, dict) and type(entry.get("layer")) is int]


def profile(probe: Result | None, part: str, path: Sequence[str]) -> Profile:
    """(layer, mean, sd) by layer; sd None where the probe has a number alone."""
    points = [(entry["layer"], *spread(entry, path)) for entry in layers(probe, part)] if probe else []
    return sorted((layer, mean, sd) for layer, mean, sd in points if mean is not None)


def target(probe: Result, part: str, path: Sequence[str]) -> float | None:
    """The target's own value, of what has one without a second set of features."""
    found = probe.whole.get(part)
    own = found.get("target") if isinstance(found, dict) else None
    return spread(own, path)[0] if isinstance(own, dict) else None


def spread(entry: Mapping[str, Any], path: Sequence[str]) -> tuple[float | None, float | None]:
    """Mean and sd: of {"mean", "sd"}, or of a number with one under NAME_sd beside it."""
    at: Any = entry
    for name in path[:-1]:
        at = at.get(name) if isinstance(at, dict) else None
    value = at.get(path[-1]) if isinstance(at, dict) else None
    if isinstance(value, dict):
        return finite(value.get("mean")), finite(value.get("sd"))
    return finite(value), finite(at.get(f"{path[-1]}_sd")) if isinstance(at, dict) else None


def _profile(axes: Axes, index: int, name: str, points: Profile) -> None:
    if not points:
        return
    x = [layer for layer, *_ in points]
    if all(sd is not None for *_, sd in points):
        low, high = ([mean + sign * (sd or 0.0) for _, mean, sd in points] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=line(index)["color"], alpha=0.16, lw=0)
    plot(axes, [(float(layer), mean) for layer, mean, _ in points], name, marked(index, len(points)))


def _named(probes: Sequence[Result | None]) -> str:
    similarity = [probe.whole.get("similarity") for probe in probes if probe]
    named = {str(s["target"]) for s in similarity if isinstance(s, dict) and s.get("target")}
    return f"the target itself ({', '.join(sorted(named))})" if named else "the target itself"


def _over(runs: Sequence[Run], probes: Sequence[Result | None], names: Mapping[str, str]) -> str:
    """Of how many images, which CKNNA and CKA depend on."""
    counts = {names[run.name]: probe.n for run, probe in zip(runs, probes, strict=True) if probe and probe.n}
    if len(set(counts.values())) < 2:
        return "".join(f"Over {n:,} images." for n in set(counts.values()))
    each = ", ".join(f"{n:,} ({name})" for name, n in counts.items())
    return f"Over different numbers of images, at which CKNNA and CKA do not compare: {each}."


def _caption(probes: Sequence[Result | None], taps: Sequence[int]) -> str:
    neighbours = {p.whole["similarity"].get("k") for p in probes if p and isinstance(p.whole.get("similarity"), dict)}
    said = "Raw states of the generator by layer, layer 0 the output of its embedding. Bands: one standard deviation "
    said += f"over images, where there is one. Dashed: {_named(probes)}."
    said += f" Grey: the aligned layer, {', '.join(map(str, taps))}." if taps else ""
    return said + (f" CKNNA with k = {', '.join(map(str, sorted(neighbours, key=str)))}." if neighbours else "")
