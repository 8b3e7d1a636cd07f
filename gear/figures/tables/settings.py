"""Tables 15 to 17, which hold settings: ours are what the recipes, or the schema's defaults, say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gear.config import SIZES, Config, Gear, Naive, family
from gear.figures.reading import NONE
from gear.figures.tables.table import Cell, Line, Table

ENCODERS = {"qwen3-1.7b": "Qwen3-1.7B"}
TARGETS = {"dinov2-b": "DINOv2", "dinov3-b": "DINOv3", "siglip2-b": "SigLIPv2", "vjepa2.1-b": "V-JEPA2.1"}
HERE = "here"


def lines(table: Table, studied: Callable[[int], Sequence[Config]]) -> list[Line]:
    """The paper's rows, each with ours below it; a dash where there is no such setting. studied: the configurations of
    the runs of a table that its settings are of, in the order of their rows."""
    found = []
    for row in table.rows:
        name, *_ = row["cells"]
        ours = [_several(row.get("field"), _configs(column, studied)) for column in table.columns[1:]]
        found.append(Line("paper", tuple(Cell(text) for text in row["cells"]), "all"))
        found.append(Line(HERE, (Cell(name), *(Cell(text) for text in ours)), "all"))
    return found


def _configs(column: Mapping[str, Any], studied: Callable[[int], Sequence[Config]]) -> Sequence[Config]:
    return studied(column["table"]) if "table" in column else [Config()]


def _several(field: str | None, configs: Sequence[Config]) -> str:
    """What the configurations have, each value once."""
    values = [said(field, config) for config in configs] if field else []
    return ", ".join(dict.fromkeys(v for v in values if v is not None)) or NONE


def said(field: str, c: Config) -> str | None:
    """A field, or what several say together, as the paper writes it; None where a configuration does not have it."""
    match field:
        case "size":
            g = c.generator
            sizes = (name for name, s in SIZES.items() if (s.layers, s.heads, s.width) == (g.layers, g.heads, g.width))
            return next(sizes, "another")
        case "model":
            return f"LlamaGen-{said('size', c)}"
        case "attention":
            return "causal"  # the one there is: `gear.generator.layers`
        case "text encoder":
            return (
                None if c.generator.text is None else ENCODERS.get(c.generator.text.encoder, c.generator.text.encoder)
            )
        case "generator init":
            return "from scratch" if c.generator.init is None else c.generator.init
        case "schedule":
            return "constant"  # the one there is: `gear.config.Optimizer`
        case "tap":
            return str(c.generator.aligned_block)
        case "target":
            return "+".join(TARGETS.get(target.name, target.name) for target in c.targets)
        case "family":
            return family(c.tokenizer) or "another"
        case "gradient":
            through = isinstance(c.stage, Naive) or (isinstance(c.stage, Gear) and c.stage.readout != "soft")
            return "STE" if through else "soft" if c.tokenizer.loss.adversarial > 0 else "w/o L_GAN"
        case "init":
            return "✓" if c.tokenizer.init else "✗"
        case "steps":
            return f"{c.steps // 1000}k" if c.steps % 1000 == 0 else f"{c.steps:,}"
        case "optimizer":
            return "AdamW"  # the one there is: `gear.update`
        case "optimizer and betas":
            return f"AdamW ({c.optimizer.beta1:g}, {c.optimizer.beta2:g})"
        case "ntp":
            return "1.0"  # `gear.step` adds it unweighted
    value: Any = c
    for name in field.split("."):
        value = getattr(value, name, None)
    return None if value is None else plain(value)


def plain(value: Any) -> str:
    if isinstance(value, bool):
        return "✓" if value else "✗"
    if isinstance(value, float):
        short = f"{value:.0e}".replace("e-0", "e-")
        return "1.0" if value == 1 else short if 0 < value < 1e-3 and float(short) == value else f"{value:g}"
    return {"bfloat16": "bf16"}.get(value, value) if isinstance(value, str) else str(value)
