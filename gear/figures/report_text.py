"""The page of `gear demo --text`: one HTML file like the demo's, whose style and pieces it shares.

`report_text.html` beside this file holds all text that does not depend on the results. Every text that comes in is
escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import Float, UInt8

from gear.figures import report as classes
from gear.figures.curves import Level, colour, swatch
from gear.figures.paper.speed import WINDOW, Reached, reached, smoothed
from gear.figures.pictures import data_uri
from gear.figures.reading import NONE, duration, headline, number, remarks
from gear.figures.results import Arm, Report, check
from gear.store.whole import replacing

TEMPLATE = Path(__file__).with_name("report_text.html")
LOSSES = (  # as Figure 3: key in the log, name, unit, how to read it
    ("ntp", "Next-token prediction", "nats per token", "Each arm predicts the tokens of its own tokenizer."),
    ("align_hard", "Alignment", "", "Minus the cosine to the vision features; the same images for both."),
)
METRICS = (  # key, name, unit or measure, better
    ("gfid", "gFID", "", -1),
    ("rank_1", "Own image first", "% of captions", 1),
    ("mean_rank", "Mean rank of the own image", "", -1),
    ("same_group", "Nearest image of the same class", "% of captions", 1),
    ("ceiling_rank_1", "Own image first, of reconstructions", "%, what the tokens allow", 0),
    ("held_out_ntp", "Held-out NTP", "nats per token", 0),
    ("train_ntp", "NTP on training images", "nats per token, no dropout, averaged weights", 0),
    ("psnr", "PSNR of the tokenizer", "dB, held out", 1),
)
CELL = 64  # px of an image in a row of samples, about


@dataclass(frozen=True)
class Look:
    """Where the words of a caption are looked at while its image is drawn. words: as the text encoder reads them;
    weights: of each where each token is predicted, on the grid; what is left of 1 is on earlier tokens."""

    caption: str
    words: tuple[str, ...]
    weights: Float[np.ndarray, "words h w"]
    image: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class TextReport:
    """
    whole: a report whose `classes` are captions, whose `inputs` are their real images, and whose arms are "gear" and
    "llamagen-repa" with one sample for each seed. looks: of each arm by its key. chance: the value of a metric for
    images that have nothing to do with their captions. block: whose attention `looks` are. n_asked: captions behind the
    ranks. interval: steps behind a point of the curves. encoder: of the captions.
    """

    whole: Report
    looks: dict[str, tuple[Look, ...]]
    chance: dict[str, float]
    block: str
    n_asked: int
    interval: int
    encoder: str


def write_report(report: TextReport, path: Path) -> None:
    """Writes the page atomically. Raises `ReportError` for results that do not fit together, and OSError."""
    text = page(report)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(report: TextReport) -> str:
    """The whole page as text."""
    whole = report.whole
    check(whole)
    legend = "".join(f'<li class="{colour(i)}">{swatch(i)}{escape(a.name)}</li>' for i, a in enumerate(whole.arms))
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        style=classes.TEMPLATE.read_text("utf-8").partition("<style>")[2].partition("</style>")[0],
        title=escape(whole.title),
        summary=escape(whole.summary),
        headline=escape(headline(whole)),
        remarks="".join(f"<p>{escape(text)}</p>" for text in (*follows(report), *remarks(whole))),
        bars=classes.bars(whole),
        arms="".join(classes.introduced(i, arm) for i, arm in enumerate(whole.arms)),
        samples=samples(whole),
        looks=looks(report),
        block=escape(report.block),
        legend=legend,
        curves="".join(_losses(report)) or '<p class="quiet">Nothing was logged.</p>',
        sooner="".join(f"<p>{escape(text)}</p>" for text in sooner(report)),
        interval=f"{report.interval:,}",
        table=classes.table(whole, _rows(report)),
        network=escape(whole.feature_network),
        encoder=escape(report.encoder),
        n_generated=f"{whole.n_generated:,}",
        n_asked=f"{report.n_asked:,}",
        commands="".join(classes.commands_of(i, arm) for i, arm in enumerate(whole.arms)),
        reproduce=classes.pre(whole.reproduce),
        settings=classes.pairs_of([*whole.settings.items(), ("seed", str(whole.seed))]),
        about=classes.pairs_of([("hardware", whole.hardware), ("versions", whole.versions), ("date", whole.date)]),
        notes="".join(f"<p>{escape(note)}</p>" for note in whole.notes),
        facts=escape(f"{duration(whole.total_seconds)} in all on {whole.hardware}, seed {whole.seed}, {whole.date}"),
    )


# --------------------------------------------------------------------------------------------------- what is said


def follows(report: TextReport) -> list[str]:
    """Whether images follow their captions, against chance."""
    said = []
    for arm in report.whole.arms:
        first, group = arm.metric("rank_1"), arm.metric("same_group")
        if first is None or group is None:
            continue
        said.append(
            f"{arm.name}: of {report.n_asked:,} images drawn for unseen captions, {number(first, 3)} % are "
            f"nearest to the very image of their caption (by chance {number(report.chance['rank_1'], 2)} %), and "
            f"{number(group, 3)} % to one of its class (by chance {number(report.chance['same_group'], 3)} %)."
        )
    return said


def sooner(report: TextReport) -> list[str]:
    """For each loss of Figure 3, by which factor sooner GEAR's curve is where the other ends, or that it is not."""
    gear, other = report.whole.arm("gear"), report.whole.arm("llamagen-repa")
    if gear is None or other is None:
        return []
    return [_sooner(gear, other, key, name.lower()) for key, name, *_ in LOSSES]


def speed_up(gear: Arm, other: Arm, key: str) -> Reached | None:
    """As Figure 3: both curves smoothed over `WINDOW` of the longer one to either side, then the first step at which
    one is as low as the other's end."""
    curves = [arm.curve(key) for arm in (gear, other)]
    window = WINDOW * max((curve[-1][0] for curve in curves if curve), default=0.0)
    return reached(*(smoothed(curve, window) for curve in curves))


def _sooner(gear: Arm, other: Arm, key: str, name: str) -> str:
    found = speed_up(gear, other, key)
    if not (gear.curve(key) and other.curve(key)):
        return f"{name}: not logged in both."
    if found is None:
        return f"{name[0].upper()}{name[1:]}: not reached. {gear.name} does not get to where {other.name} ends."
    end = f"{name} with which {other.name} ends, {number(found.level)}"
    if not found.crossed:
        return f"{gear.name} is below the {end}, from its first point on: that is no speed, its loss is another."
    return f"{gear.name} reaches the {end}, at step {found.step:,.0f}: {found.factor:.2f} times as fast."


def _losses(report: TextReport) -> list[str]:
    """The two frames, with the level at which the other arm ends."""
    other, frames = report.whole.arm("llamagen-repa"), []
    for key, name, unit, about in LOSSES:
        curve = other.curve(key) if other else []
        levels = (Level(curve[-1][1], f"{other.name} ends"),) if other and curve else ()
        frames.append(classes.frame(report.whole, key, "generator", name, unit, about, levels))
    return frames


def _rows(report: TextReport) -> list[tuple[str, str, str, int]]:
    sizes = {"gfid": f"n = {report.whole.n_generated:,}", "psnr": f"n = {report.whole.n_reconstructed:,}"}
    rows = []
    for key, name, unit, better in METRICS:
        chance = f"by chance {number(report.chance[key], 3)}" if key in report.chance else ""
        rows.append((key, name, ", ".join(part for part in (unit, sizes.get(key, ""), chance) if part), better))
    return rows


# ------------------------------------------------------------------------------------------------------- pictures


def samples(report: Report) -> str:
    """A row for each caption: its real image, then a strip for each arm."""
    drawn = [(i, arm.name, arm.samples) for i, arm in enumerate(report.arms) if arm.samples is not None]
    rows = []
    for row, caption in enumerate(report.classes):
        real = _strip(None, "Real", f"the held-out image of the caption {caption}", report.inputs[row][None])
        strips = [_strip(i, arm, f"drawn by {arm} for the caption {caption}", x[row]) for i, arm, x in drawn]
        rows.append(
            f'<div class="class-row"><h3>{escape(caption)}</h3><div class="strips">{real}{"".join(strips)}</div></div>'
        )
    return f'<div class="samples asked">{"".join(rows)}</div>'


def _strip(style: int | None, name: str, said: str, cells: UInt8[np.ndarray, "n H W 3"]) -> str:
    images = "".join(f'<img alt="" src="{data_uri(cell)}">' for cell in cells)
    mark = swatch(style) if style is not None else ""
    return (
        f'<figure class="{colour(style or 0)}" {_grid(cells, CELL)}><figcaption>{mark}{escape(name)}</figcaption>'
        f'<div class="strip" role="img" aria-label="{escape(said)}">{images}</div></figure>'
    )


def looks(report: TextReport) -> str:
    """For each arm and caption the image, then a map for each word: its share of the attention on the caption, without
    which tokens that have few before them would look at all words most."""
    parts = []
    for i, arm in enumerate(report.whole.arms):
        for look in report.looks.get(arm.key, ()):
            cells = [_map(look.image, "drawn", "")]
            shares = look.weights / look.weights.sum(0)
            for word, share in zip(look.words, shares, strict=True):
                low, high = 100 * share.min(), 100 * share.max()
                cells.append(_map(heat(share), word, f"{low:.1f} {NONE} {high:.1f} %"))
            parts.append(
                f'<div class="{colour(i)} look"><h3>{swatch(i)}{escape(arm.name)}: {escape(look.caption)}</h3>'
                f'<div class="maps">{"".join(cells)}</div></div>'
            )
    return "".join(parts) or '<p class="quiet">No arm has maps.</p>'


def heat(weights: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """White at the smallest, dark blue at the largest; all white where they are alike."""
    low, high = float(weights.min()), float(weights.max())
    share = ((weights - low) / ((high - low) or 1.0))[..., None].astype(np.float64)
    return np.round((1 - share) * 255 + share * np.array([8.0, 48.0, 107.0])).astype(np.uint8)


def _map(pixels: UInt8[np.ndarray, "h w 3"], word: str, share: str) -> str:
    said = f"attention on {word}, {share}" if share else "the image that was drawn"
    return (
        f'<figure><img src="{data_uri(pixels)}" alt="{escape(said)}">'
        f"<figcaption>{escape(word)} <span>{escape(share)}</span></figcaption></figure>"
    )


def _grid(cells: Sequence[np.ndarray] | np.ndarray, target: int) -> str:
    width = cells[0].shape[1]
    return f'style="--n:{len(cells)};--w:{width * max(1, round(target / width))}px"'
