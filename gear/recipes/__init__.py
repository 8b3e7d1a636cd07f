"""One function per run, each returning its whole configuration; its docstring says the command, the cost and what the
paper measured. `gear train NAME` takes these names with dashes; any field can be changed on the command line.

Every row of Tables 1 (but its diffusion models) and 5 to 14 and every warm-up has one; Tables 15 and 16 are what they
have in common. Text-to-image (Tables 2, 3, 17 and 19) is not built yet.
"""

from gear.recipes.cifar import cifar10
from gear.recipes.demos import demo, demo_ibq, demo_lfq, demo_llamagen, demo_naive, demo_repa, demo_warmup
from gear.recipes.registry import RECIPES, ROWS, Generated, Rebuilt, Row, complete, name_of, run_of, same_as

# isort: split
from gear.recipes import base as base  # each registers its own
from gear.recipes import own as own
from gear.recipes import table01 as table01
from gear.recipes import tables05to08 as tables05to08
from gear.recipes import tables10to14 as tables10to14

complete()

__all__ = [
    "RECIPES",
    "ROWS",
    "Generated",
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
    "name_of",
    "run_of",
    "same_as",
]
