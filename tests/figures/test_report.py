"""The page as a reader's browser gets it: whole, self-contained, escaped, with every number."""

import base64
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gear.figures.curves import STYLES
from gear.figures.pictures import data_uri
from gear.figures.reading import duration, headline, number, remarks
from gear.figures.report import TEMPLATE, Arm, Report, ReportError, page, write_report

VOID = {"br", "hr", "img", "link", "meta"}
HOSTILE = """<script>alert("1")</script> & 'it' $title ${page}"""


class Outline(HTMLParser):
    """Fails on a tag that is closed out of turn; keeps all elements with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [a[attribute] or "" for _, a in self.elements if attribute in a]


def with_arm(report: Report, key: str, **changes: object) -> Report:
    return replace(report, arms=tuple(replace(a, **changes) if a.key == key else a for a in report.arms))


def with_gfid(report: Report, gear: float | None, repa: float | None) -> Report:
    for key, value in (("gear", gear), ("llamagen-repa", repa)):
        arm = report.arm(key)
        assert arm is not None
        report = with_arm(report, key, metrics={**arm.metrics, "gfid": value})
    return report


# ------------------------------------------------------------------------------------------------------- the page


def test_it_has_every_number_name_and_text(report: Report) -> None:
    text = Outline(page(report)).text
    for arm in report.arms:
        for expected in (arm.name, arm.what, *arm.commands, duration(arm.seconds), number(arm.images_per_s, 3)):
            assert expected in text
        assert f"{arm.steps:,} steps" in text
        for value in arm.metrics.values():
            assert number(value) in text
    fields = (report.title, report.summary, report.hardware, report.versions, report.date, report.feature_network)
    for expected in (*fields, *report.notes, *report.reproduce, *report.classes, headline(report), *remarks(report)):
        assert expected in text
    for expected in ("n = 1,000", "n = 152", "9 min 42 s", "log K = 6.24", "K = 512", "not\nInception FIDs", "seed17"):
        assert expected in text
    for name, value in report.settings.items():
        assert f"{name}{value}" in text


def test_it_is_one_well_formed_file_that_loads_nothing(report: Report) -> None:
    text = page(report)
    outline = Outline(text)
    assert not re.search(r"https?:|url\(|@import|<script|<iframe", text)
    assert all(source.startswith("data:") for source in outline.values("src"))
    links, ids = outline.values("href"), outline.values("id")
    assert all(link == "data:," or link.removeprefix("#") in ids for link in links)
    assert len(ids) == len(set(ids))
    assert "default-src 'none'" in text  # nor could it
    assert len(text) < 1_000_000


def test_pictures_are_described_and_exact(report: Report) -> None:
    outline = Outline(page(report))
    images = [a for tag, a in outline.elements if tag == "img"]
    assert len(images) == 2 * 4 * 4 + 3 * (1 + 3)  # arms x classes x columns, and inputs with a reconstruction by each
    assert all("alt" in image for image in images)
    assert "4 samples of the class flags & signs, drawn by LlamaGen-REPA" in outline.values("aria-label")
    encoded = data_uri(report.inputs[0]).removeprefix("data:image/webp;base64,")
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))) == report.inputs[0]).all()


def test_every_text_is_escaped(report: Report) -> None:
    arms = tuple(
        replace(arm, name=HOSTILE, what=HOSTILE, commands=(HOSTILE,), metrics={HOSTILE: 1.0}) for arm in report.arms
    )
    fields = ("title", "summary", "feature_network", "hardware", "versions", "date")
    lists = {"notes": (HOSTILE,), "reproduce": (HOSTILE,), "settings": {HOSTILE: HOSTILE}}
    classes = (HOSTILE, *report.classes[1:])
    text = page(replace(report, arms=arms, classes=classes, **dict.fromkeys(fields, HOSTILE), **lists))
    outline = Outline(text)
    assert "<script" not in text
    assert outline.text.count(HOSTILE) > 30
    assert all("alert" not in name for _, attributes in outline.elements for name in attributes)


def test_arms_with_less(report: Report) -> None:
    """A frozen arm alone has no term of eq. 2; of a run killed early nothing is logged, drawn or measured."""
    repa = report.arm("llamagen-repa")
    assert repa is not None
    alone = Outline(page(replace(report, arms=(repa,)))).text
    assert "Next-token prediction" in alone
    assert "Commitment" not in alone.split("Glossary")[0]
    bare = replace(repa, log=[], metrics={}, samples=None, reconstructions=None)
    text = Outline(page(replace(report, arms=(bare,), inputs=report.inputs[:0]))).text
    for expected in ("No arm has samples", "No arm has reconstructions", "Nothing was logged", "No arm has one."):
        assert expected in text


def test_a_diverged_arm_is_shown_as_such(report: Report) -> None:
    gear = report.arm("gear")
    assert gear is not None
    log = [dict(line, ntp=float("nan"), L_VQ=float("inf")) for line in gear.log]
    text = page(with_arm(report, "gear", log=log, metrics={**gear.metrics, "gfid": float("nan")}))
    assert "not finite" in Outline(text).text
    assert not re.search(r'd="[^"]*(nan|inf)', text)


def test_more_arms_than_two_samples_and_than_styles(report: Report) -> None:
    arms = tuple(replace(report.arms[0], key=f"arm {i}", name=f"Arm {i}") for i in range(STYLES + 1))
    text = page(replace(report, arms=arms))
    Outline(text)
    assert "pairwise" in page(report).split("</style>")[1]
    assert "pairwise" not in text.split("</style>")[1]


def test_what_does_not_fit_together_is_refused(report: Report) -> None:
    with pytest.raises(ReportError, match="samples of gear need a row for each of 3 classes; they have 4"):
        page(replace(report, classes=report.classes[:3]))
    with pytest.raises(ReportError, match="reconstructions of gear must be of the 2 inputs; there are 3"):
        page(replace(report, inputs=report.inputs[:2]))
    with pytest.raises(ReportError, match="each with a key of its own"):
        page(replace(report, arms=(report.arms[0], report.arms[0])))


def test_it_is_written_whole_or_not_at_all(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new folder" / "report.html"
    write_report(report, path)
    assert path.read_text(encoding="utf-8") == page(report)

    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        write_report(replace(report, title="another"), path)
    assert path.read_text(encoding="utf-8") == page(report)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_best_of_a_row_is_bold(report: Report) -> None:
    text = page(report)
    assert "<strong>612.3</strong>" in text
    assert "<strong>22.42</strong>" in text
    assert text.count("<strong>") == 3  # PSNR, rFID and gFID; the rest has no better and worse


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(theme: int) -> None:
    """WCAG 2.2: 4.5 for text and 3 for lines, of the arms that the demo has."""
    block = TEMPLATE.read_text("utf-8").split(":root {")[1 + theme]
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", block.split("}")[0]))

    def luminance(name: str) -> float:
        hexes = colours[name].removeprefix("#")
        hexes = hexes if len(hexes) == 6 else "".join(2 * c for c in hexes)
        levels = [int(hexes[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name, needed in {"ink": 7, "quiet": 4.5, "arm-0": 3, "arm-1": 3, "arm-2": 3, "arm-3": 3}.items():
        for ground in ("paper", "card"):
            low, high = sorted((luminance(name), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= needed, (name, ground)


# ----------------------------------------------------------------------------------------------------- the reading


def test_the_headline_when_gear_wins(report: Report) -> None:
    said = headline(with_gfid(report, 2824.0, 3158.0))
    assert said == (
        "After 800 steps each, GEAR's images are closer to real ones than LlamaGen-REPA's: "
        "gFID 2,824 against 3,158, 11 % lower."
    )


def test_the_headline_when_gear_loses(report: Report) -> None:
    said = headline(with_gfid(report, 3158.0, 2824.0))
    assert "GEAR does not win" in said
    assert "farther from real ones" in said
    assert said.endswith("gFID 3,158 against 2,824, 12 % higher.")


@pytest.mark.parametrize("gear", [2900.0, 3000.0], ids=["a little lower", "a little higher"])
def test_the_headline_of_a_tie(report: Report, gear: float) -> None:
    said = headline(with_gfid(report, gear, 2950.0))
    assert "come out level" in said
    assert "1.7 % apart, which 1,000 images and one seed cannot tell from chance" in said


def test_the_headline_of_unequal_budgets(report: Report) -> None:
    assert "After 800 steps against LlamaGen-REPA's 1,600" in headline(with_arm(report, "llamagen-repa", steps=1600))


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_the_headline_without_a_comparison(report: Report, missing: float | None) -> None:
    said = headline(with_gfid(report, missing, 3158.0))
    assert said == "GEAR and LlamaGen-REPA cannot be compared: there is no gFID of GEAR."
    assert "one of the two arms is missing" in headline(replace(report, arms=report.arms[:1]))


def test_a_collapse_is_named_only_where_there_is_one(report: Report) -> None:
    assert "The naive way collapses within 300 steps: of 512 codewords it uses the equivalent of 8.42" in " ".join(
        remarks(report)
    )
    assert "collapse: 8.42 in use</text>" in page(report)
    naive = report.arm("naive")
    assert isinstance(naive, Arm)
    healthy = with_arm(report, "naive", metrics={**naive.metrics, "effective_size": 398.2})
    assert "has not collapsed after 300 steps: of 512 codewords it uses the equivalent of 398" in " ".join(
        remarks(healthy)
    )
    assert "in use</text>" not in page(healthy)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3158.4, "3,158"), (999.96, "1,000"), (612.34, "612.3"), (22.1, "22.10"), (0.0312, "0.03120"),
        (-4.1, "\N{MINUS SIGN}4.100"), (0.0, "0.000"), (None, "\N{EN DASH}"), (float("inf"), "not finite"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.23, "4.2 s"), (9.97, "10 s"), (59.6, "1 min 00 s"), (582.4, "9 min 42 s"), (3779.0, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
