"""One results.json, or one point of a sweep, or a probe.json, as figures and tables read it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gear.train import lines

MOST = 64 << 20  # bytes of a results file; larger ones are something else
USAGES = ("natural", "soft")  # of hard indices, and of the soft assignment at the probe's tau
Basis = tuple[int | None, int | None, str]  # n, of the reference n and a digest, or its name


@dataclass(frozen=True)
class Result:
    """One results.json, or one point of a sweep.

    metrics: name -> value, finite ones alone; of a probe those of `probed`. n: images behind the first of them.
    cfg_scale: None where none is said. steps, params, recipe, stage, name: of the model; None where it is not known, as
    for a folder of images. entries: the metrics as they are. whole: the file, as it is.
    """

    path: Path
    protocol: str
    metrics: Mapping[str, float]
    n: int | None
    cfg_scale: float | None
    steps: int | None
    params: int | None
    recipe: str | None
    stage: str | None
    name: str | None
    entries: Mapping[str, Any] = field(repr=False)
    whole: Mapping[str, Any] = field(repr=False)

    def setting(self, *names: str) -> Any:
        """The first of the names that the settings, the source or the reference have; None where none has."""
        parts = [mapping(self.whole.get(part)) for part in ("settings", "source", "reference")]
        return next((part[name] for part in parts for name in names if part.get(name) is not None), None)

    @property
    def reference(self) -> str:
        """What it was measured against, with how many images where it says so; "" where it does not."""
        said = mapping(self.whole.get("reference"))
        named = said.get("path") or said.get("name") or said.get("kind")
        n = lines.whole_number(said.get("n"))
        return (f"{named}" + (f" ({n:,} images)" if n else "")) if named else ""

    @property
    def basis(self) -> Basis:
        """What has to be equal for two gFIDs to compare."""
        said = mapping(self.whole.get("reference"))
        digest = next((str(said[name]) for name in ("pixels_sha256", "sha256", "state") if said.get(name)), "")
        return self.n, lines.whole_number(said.get("n")), digest or self.reference

    @property
    def of(self) -> str:
        """ "n = 1,000 against cifar10-test (10,000 images)"."""
        n = f"n = {self.n:,}" if self.n else "n unknown"
        return f"{n} against {self.reference}" if self.reference else n

    @property
    def measured(self) -> tuple[int, int] | None:
        """Of a sweep, how many of how many scales it has, where it was interrupted."""
        scales, points = listed(mapping(self.whole.get("settings")).get("scales")), listed(self.whole.get("points"))
        return (len(points), len(scales)) if len(scales) > len(points) and "points" in self.whole else None


def results(file: Path) -> list[Result]:
    """Of one file: itself, where it has metrics or is a probe, then the points of a sweep."""
    whole = loaded(file)
    protocol, model = whole.get("protocol"), mapping(whole.get("model"))
    if not isinstance(protocol, str):
        raise ValueError(f'{file} is no results file of gear: it has no "protocol".')
    settings = mapping(whole.get("settings"))
    found = []
    for part in (whole, *(p for p in listed(whole.get("points")) if isinstance(p, Mapping))):
        metrics = {name: mapping(entry) for name, entry in mapping(part.get("metrics")).items()}
        values = {name: v for name, m in metrics.items() if (v := finite(m.get("value"))) is not None}
        values |= probed(whole) if protocol == "probe" else {}
        scale = finite(part.get("cfg_scale", settings.get("cfg_scale")))
        counts = [m["n"] for m in metrics.values() if type(m.get("n")) is int]
        kind = "point" if part is not whole else protocol
        found.append(
            Result(
                file,
                kind,
                values,
                n=counts[0] if counts else lines.whole_number(settings.get("n")),
                cfg_scale=scale,
                steps=lines.whole_number(model.get("steps")),
                params=lines.whole_number(model.get("params")),
                recipe=text(model.get("recipe")),
                stage=text(model.get("stage")),
                name=text(model.get("name")),
                entries=metrics,
                whole=whole,
            )
        )
    return found


def probed(whole: Mapping[str, Any]) -> dict[str, float]:
    """Of a probe "pre.image.cka", ...: the tokenizer's features against the target (Table 4); and "natural.entropy",
    "soft.entropy", ...: how the codebook is used (Figure 4)."""
    found: dict[str, float | None] = {}
    for when, levels in mapping(mapping(whole.get("similarity")).get("tokenizer")).items():
        for level, kinds in mapping(levels).items():
            found |= {f"{when}.{level}.{kind}": finite(value) for kind, value in mapping(kinds).items()}
    for usage in USAGES:
        used = mapping(mapping(whole.get("codebook")).get(usage))
        found |= {f"{usage}.{name}": finite(value) for name, value in used.items() if name != "tau"}
    return {name: value for name, value in found.items() if value is not None}


def loaded(file: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError, which names the file, for anything else."""
    if file.stat().st_size > MOST:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, and is none of gear's.")
    try:
        whole = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error}): make it again, or move it away.") from None
    if not isinstance(whole, dict):
        raise ValueError(f"{file} should hold a JSON object; it holds a {type(whole).__name__}.")
    return whole


def finite(value: Any) -> float | None:
    """A number of JSON that is one; else None."""
    kept = lines.number(value)
    return kept if kept is not None and math.isfinite(kept) else None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
