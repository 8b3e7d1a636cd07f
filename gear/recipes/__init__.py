"""One function per run, each returning its whole configuration; its docstring says the command, the cost and what the
paper measured. `gear train NAME` takes these names with dashes; any field can be changed on the command line.

Every row of Tables 1 to 3 (but other methods) and 5 to 14 and every warm-up has one; Tables 15 to 17 are what they have
in common, and Table 19 samples the runs of Table 3.
"""

from gear.recipes.cifar import cifar10
from gear.recipes.demos import demo, demo_ibq, demo_lfq, demo_llamagen, demo_naive, demo_repa, demo_warmup
from gear.recipes.registry import (
    RECIPES,
    ROWS,
    Generated,
    Pictured,
    Prompted,
    Rebuilt,
    Row,
    complete,
    gpus,
    name_of,
    run_of,
)

# isort: split
from gear.recipes import base as base  # each registers its own
from gear.recipes import own as own
from gear.recipes import table01 as table01
from gear.recipes import tables05to08 as tables05to08
from gear.recipes import tables10to14 as tables10to14
from gear.recipes import text as text

complete()

__all__ = [
    "RECIPES",
    "ROWS",
    "Generated",
    "Pictured",
    "Prompted",
    "Rebuilt",
    "Row",
    "cifar10",
    "demo",
    "demo_ibq",
    "demo_lfq",
    "demo_llamagen",
    "demo_naive",
    "demo_repa",
    "demo_warmup",
    "gpus",
    "name_of",
    "run_of",
]
