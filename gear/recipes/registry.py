"""Every recipe by its name on the command line, and what the paper measured for those that are rows of its tables.

A recipe is a function that returns a whole `Config`. The decorators below put it in `RECIPES`, under its own name with
dashes (and a point between two digits: `table05_tau_0_5` is table05-tau-0.5), and complete its docstring with the
command, the paper's numbers and the cost, so that what is read and what is counted cannot differ.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, replace
from inspect import cleandoc
from textwrap import wrap
from typing import Literal

from gear.config import NAMED, Config, Sampling, flips
from gear.store.networks import ON_THE_HUB

IMAGENET = "imagenet/train"  # where recipes look for its images
GPIC = "gpic/train"
IMAGES = {IMAGENET: 1_281_167, GPIC: 100_000_000}  # to train on; of GPIC about
DEMO = "demo/gear"  # the run that `gear demo` leaves there
PUBLISHED = {  # the authors' own files of what a recipe trains, by their names in `gear fetch`
    "runs/warmup-vq": "warmup-vq-16",
    "runs/warmup-lfq": "warmup-lfq-16",
    "runs/warmup-ibq": "warmup-ibq-16",
    "runs/gear-l": "gear-vq-16",  # which size it is of, its PSNR 20.78 and rFID 1.64 tell (Table 9)
}

Recipe = Callable[[], Config]


@dataclass(frozen=True)
class Generated:
    """What 50,000 generated images score by the ADM protocol."""

    gfid: float
    sfid: float
    inception: float  # the Inception Score
    precision: float
    recall: float

    def __str__(self) -> str:
        names = ("gFID", "sFID", "IS", "precision", "recall")
        return ", ".join(f"{name} {value:g}" for name, value in zip(names, astuple(self), strict=True))


@dataclass(frozen=True)
class Pictured:
    """What 50,000 images of GPIC's captions score in DINOv2 features."""

    fdd: float  # Frechet distance
    precision: float
    recall: float
    coverage: float
    mmd: float

    def __str__(self) -> str:
        names = ("FDD", "precision", "recall", "coverage", "MMD")
        return ", ".join(f"{name} {value:g}" for name, value in zip(names, astuple(self), strict=True))


@dataclass(frozen=True)
class Prompted:
    """What images of the prompts of several benchmarks score."""

    geneval_short: float
    geneval_long: float
    dpg: float  # DPG-Bench
    clip: float  # CLIP score on COCO
    fid: float  # on COCO

    def __str__(self) -> str:
        names = ("GenEval short", "GenEval long", "DPG-Bench", "CLIP score", "FID")
        return ", ".join(f"{name} {value:g}" for name, value in zip(names, astuple(self), strict=True))


Scores = Generated | Pictured | Prompted


@dataclass(frozen=True)
class Rebuilt:
    """The tokenizer's reconstructions of the ImageNet validation set."""

    psnr: float  # dB
    ssim: float
    rfid: float

    def __str__(self) -> str:
        return f"PSNR {self.psnr:g}, SSIM {self.ssim:g}, rFID {self.rfid:g}"


@dataclass(frozen=True)
class Row:
    """A row of a table of the paper."""

    table: int
    label: str  # its first cells
    generated: Mapping[float, Scores]  # by the scale of classifier-free guidance; 1 is none
    rebuilt: Rebuilt | None  # None where the table does not say


GROUPS = {  # in the order of `gear recipes`; a number is a table's
    "start": "To start with",
    "own": "Your own images, small machines",
    18: "Warm-ups (Table 18)",
    9: "Model size (Table 9)",
    1: "Long runs on ImageNet (Table 1)",
    5: "Guidance temperature (Table 5)",
    6: "Alignment coefficient (Table 6)",
    7: "Components (Table 7)",
    8: "Tokenizers (Table 8)",
    10: "Representation encoder (Table 10)",
    11: "Alignment depth (Table 11)",
    12: "Tokenizer initialisation (Table 12)",
    13: "Resolution (Table 13)",
    14: "Guidance scale in sampling (Table 14)",
    2: "Text-to-image on GPIC (Table 2)",
    3: "Text-to-image benchmarks (Table 3)",
    "beside": "Beside the tables",
}
NOTES = {  # what a group leaves out
    18: "Table 18's other rows need no run of their own: Reported and Reproduced are the public files (`gear fetch`), "
    "GEAR is table08-vq-gear, table08-lfq-gear and table08-ibq-gear.",
    1: "Table 1's diffusion models (DiT, SiT, MDT, MDTv2, SiT-REPA, REPA-E) are other methods, without a recipe.",
    2: "Table 2's first row, JiT-GPIC, is another method, without a recipe. `gear train NAME --help` says a row's "
    "scores, FDD among them.",
    3: "Table 3's other systems, PixArt and Chameleon, are without a recipe.",
}
WITHOUT = {  # why the paper's other tables have no recipe
    4: "a measurement, on the tokenizers of warmup-vq and gear-l",
    15: "settings by study, which the recipes of Tables 5 to 13 have",
    16: "settings of all studies, which are the fields' defaults; see gear-l",
    17: "settings of text-to-image, which the recipes of Tables 2 and 3 have",
    19: "guidance in sampling, of the two runs of Table 3",
}
WIDTH = 79  # of a docstring, which is also the help of `gear train NAME`
RECIPES: dict[str, Recipe] = {}
ROWS: dict[str, Row] = {}  # of the recipes that are rows
GROUP: dict[str, int | str] = {}  # where a recipe is listed, a key of GROUPS
_RUN: dict[str, str] = {}  # the recipe that first asks for the same run


def recipe(group: Literal["start", "own", "beside"]) -> Callable[[Recipe], Recipe]:
    """Registers a recipe that is no row of a table."""
    return lambda function: _register(function, group)


def row(
    table: int,
    label: str,
    generated: Mapping[float, tuple[float, ...]],
    rebuilt: tuple[float, float, float] | None = None,
    scores: type[Scores] = Generated,
) -> Callable[[Recipe], Recipe]:
    """Registers the recipe of a row, with the row's numbers in the order of the table's columns. scores: what they
    are."""
    found = {scale: scores(*values) for scale, values in generated.items()}
    measured = Row(table, label, found, None if rebuilt is None else Rebuilt(*rebuilt))
    return lambda function: _register(function, table, measured)


def complete() -> None:
    """Finds the recipes that ask for the same run and completes the docstrings, once all recipes are there."""
    first: dict[Config, str] = {}
    for name, function in RECIPES.items():
        _RUN[name] = first.setdefault(replace(function(), sampling=Sampling()), name)
        function.__doc__ = _documented(name, function, ROWS.get(name))


def run_of(name: str) -> str:
    """The recipe that a run is trained by: the first that differs from `name` in its sampling at most."""
    return _RUN[name]


def name_of(config: Config) -> str | None:
    """The first recipe that trains what `config` does, wherever the images lie and however it is watched, saved, run
    and sampled; None where no recipe does."""
    free = ("device", "log_every", "save_every", "keep_last", "keep_every", "engine", "guards", "watch", "sampling")
    for name, function in RECIPES.items():
        asked = function()
        mine = replace(config, **{field: getattr(asked, field) for field in free})
        if not {asked.data.path, config.data.path} & set(NAMED):
            mine = replace(mine, data=replace(mine.data, path=asked.data.path))
        flip = asked.data.flip if flips(config) == flips(asked) else config.data.flip  # a run says what the default is
        if replace(mine, data=replace(mine.data, workers=asked.data.workers, flip=flip)) == asked:
            return name
    return None


def gpus(name: str | None) -> int:
    """How many a recipe is for: 8 of those of the paper's size, else, and where it is no recipe, 1."""
    return 1 if GROUP.get(name or "", "own") in ("start", "own") else 8


def made_by(source: str) -> str | None:
    """The command that makes the run of this name, which a recipe starts from; None for what no recipe makes."""
    if source == DEMO:
        return "gear demo"
    name = source.removeprefix("runs/")
    return f"gear train {name}" if name in RECIPES else None


def _register(function: Recipe, group: int | str, found: Row | None = None) -> Recipe:
    name = re.sub(r"(?<=\d)_(?=\d)", ".", function.__name__).replace("_", "-")
    if name in RECIPES:
        raise ValueError(f"there are two recipes called {name}.")
    RECIPES[name], GROUP[name] = function, group
    if found is not None:
        ROWS[name] = found
    return function


def _documented(name: str, function: Recipe, found: Row | None) -> str:
    """What is written, then one point for each thing to know. No line but the first begins with a letter: tyro, which
    prints this as help, would join it to the line before."""
    config, run = function(), run_of(name)
    title, *written = cleandoc(function.__doc__ or "").split("\n\n")
    points = [*written, f"Command: `gear train {name}`{_images(config)}."]
    for init in (config.tokenizer.init, config.generator.init):
        if init is not None and (command := made_by(init)):
            points += [f"First: `{command}`{_published(init)}."]
    if config.generator.text is not None:
        points += [f"Captions: once `pip install 'gear[text]'` and `{_brought(config.generator.text.encoder)}`."]
    if run != name:
        points += [f"The same run as {run}{_sampled(config, run)}: no need to train it again."]
    points += [f"Cost: {_cost(config)}; `gear plan {name}` says the GPU hours and the memory."]
    if found is not None:
        points += [f"Paper, Table {found.table}, {found.label}:", *_paper(found)]
    lines = [line for point in points for line in _wrapped(point if point.startswith(" ") else f"- {point}")]
    return "\n\n".join((title, "\n".join(lines)))


def _wrapped(point: str) -> list[str]:
    """In lines of `WIDTH`, the later ones indented; what stands in backticks, to be copied, stays in one."""
    unbroken = re.sub(r"`[^`]*`", lambda match: match[0].replace(" ", "\0"), point)
    indent = "  " if point.startswith("-") else "    "
    lines = wrap(unbroken, WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return [line.replace("\0", " ") for line in lines]


def _images(config: Config) -> str:
    path = config.data.path
    return "" if path in NAMED else f"; images: {path}, or --data.path FOLDER"


def _published(init: str) -> str:
    return f", or the authors' own: --tokenizer.init {PUBLISHED[init]}" if init in PUBLISHED else ""


def _brought(encoder: str) -> str:
    """The command that brings a text encoder; a hub's model comes by itself, but rather before the run."""
    return f"hf download {ON_THE_HUB[encoder]}" if encoder in ON_THE_HUB else f"gear fetch {encoder}"


def _sampled(config: Config, run: str) -> str:
    scale = config.sampling.cfg_scale
    same = scale == RECIPES[run]().sampling.cfg_scale
    return "" if same else f", sampled with `gear sample runs/{run} --cfg-scale {scale}`"


def _cost(config: Config) -> str:
    images = IMAGES.get(config.data.path)
    epochs = f", {config.steps * config.batch / images:.1f} epochs" if images else ""
    return f"{config.steps:,} steps of {config.batch} images{epochs}"


def _paper(found: Row) -> list[str]:
    how = {scale: f"with guidance {scale:g}" if scale != 1 else "without guidance" for scale in found.generated}
    lines = [f"  {how[scale]}: {scores}" for scale, scores in found.generated.items()]
    return lines + ([f"  reconstruction: {found.rebuilt}"] if found.rebuilt else [])
