"""The numbers of runs as HTML: a table for each protocol, a row for each result, a column for each metric."""

from collections.abc import Sequence
from html import escape

from gear.figures.paper.found import Run
from gear.figures.paper.metrics import ARROWS, called, direction
from gear.figures.paper.result import USAGES, Result, finite, mapping
from gear.figures.reading import NONE, number

PROTOCOLS = {
    "adm": "Generation, ADM protocol", "reconstruction": "Reconstruction", "gpic": "Text-to-image, GPIC",
    "coco": "COCO", "geneval": "GenEval", "dpg": "DPG-Bench", "point": "Guidance sweep",
}  # fmt: skip


def tables(runs: Sequence[Run]) -> list[str]:
    """Those that have any number; of probes one of the similarity to the target (Table 4), one of the codebook's use
    (Figure 4)."""
    found = [table(title, [(run, r, "") for run in runs for r in run.of(kind)]) for kind, title in PROTOCOLS.items()]
    probes = [(run, r) for run in runs for r in run.of("probe")]
    alike = [(run, r, f"{when}.") for run, r in probes for when in ("pre", "post")]
    used = [(run, r, f"{usage}.") for run, r in probes for usage in USAGES]
    found += [table("Tokenizer against the target", alike), table("Codebook usage", used)]
    return [text for text in found if text]


def table(title: str, rows: Sequence[tuple[Run, Result, str]]) -> str:
    """Of each run, result and prefix those metrics that begin with it; "" without any."""
    kept = [(run, result, prefix, of) for run, result, prefix in rows if (of := _of(result, prefix))]
    if not kept:
        return ""
    metrics = list(dict.fromkeys(name for *_, of in kept for name in of))
    heads = "".join(f'<th scope="col">{escape(f"{called(m)} {ARROWS[direction(m)]}".rstrip())}</th>' for m in metrics)
    body = "".join(
        f'<tr><th scope="row">{escape(run.name)}<small>{escape(_about(result, prefix))}</small></th>'
        + "".join(f"<td>{_value(result, prefix + m) if m in of else NONE}</td>" for m in metrics)
        + "</tr>"
        for run, result, prefix, of in kept
    )
    label = f'tabindex="0" role="region" aria-label="{title}"'
    rows_of = f"<thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody>"
    return f'<h3>{title}</h3><div class="scroll" {label}><table>{rows_of}</table></div>'


def _of(result: Result, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in result.metrics if name.startswith(prefix)]


def _about(result: Result, prefix: str) -> str:
    """What a row is of."""
    parts = [called(prefix.rstrip("."))] if prefix else []
    tau = finite(mapping(mapping(result.whole.get("codebook")).get("soft")).get("tau"))
    parts += [f"tau = {tau:g}"] if prefix == "soft." and tau is not None else []
    parts += [f"n = {result.n:,}" if result.n else "", f"step {result.steps:,}" if result.steps is not None else ""]
    parts += [f"CFG {result.cfg_scale:g}" if result.cfg_scale is not None else ""]
    parts += [f"prompts {said}" if isinstance(said := result.setting("prompt_set"), str) else ""]
    parts += [f"against {result.reference}" if result.reference else ""]
    return ", ".join(part for part in parts if part)


def _value(result: Result, name: str) -> str:
    ends = mapping(result.entries.get(name)).get("interval")
    limits = [finite(end) for end in ends] if isinstance(ends, list) and len(ends) == 2 else [None]
    interval = "" if None in limits else f"<small>[{number(limits[0])}, {number(limits[-1])}]</small>"
    return number(result.metrics[name]) + interval
