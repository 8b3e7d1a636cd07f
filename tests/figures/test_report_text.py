"""The page of two text-to-image runs: every number and picture in it, escaped, and what is said of a speed-up."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from gear.figures.paper.speed import reached
from gear.figures.report import Arm, Report
from gear.figures.report_text import METRICS, Look, TextReport, heat, page, sooner, speed_up, write_report

HOSTILE = """<script>alert("1")</script> & 'it' $title ${page}"""
VOID = {"br", "hr", "img", "link", "meta"}


class Whole(HTMLParser):
    """Fails on a tag that is closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def log(ntp: list[float], align: list[float]) -> list[dict[str, float]]:
    return [
        {"step": 100.0 * (i + 1), "ntp": a, "align_hard": b} for i, (a, b) in enumerate(zip(ntp, align, strict=True))
    ]


@pytest.fixture
def told(report: Report) -> TextReport:
    rng = np.random.default_rng(0)
    captions = ("a red fox", HOSTILE)

    def arm(key: str, name: str, lines: list[dict[str, float]], shift: float) -> Arm:
        metrics = {key: 10.0 * (i + 1) + shift for i, (key, *_) in enumerate(METRICS)}
        return replace(
            report.arms[0],
            key=key,
            name=name,
            log=lines,
            metrics=metrics,
            samples=rng.integers(0, 256, (2, 3, 16, 16, 3)).astype(np.uint8),
            reconstructions=None,
        )

    ours = arm("gear", "GEAR", log([5.0, 4.0, 3.0, 2.0], [-0.1, -0.2, -0.2, -0.2]), 0.123)
    theirs = arm("llamagen-repa", "LlamaGen-REPA", log([5.0, 4.5, 4.2, 3.5], [-0.1, -0.2, -0.3, -0.4]), 0.456)
    whole = replace(report, arms=(ours, theirs), classes=captions, inputs=report.inputs[:2])
    look = Look("a red fox", ("a", HOSTILE), rng.random((2, 4, 4)).astype(np.float32), report.inputs[0])
    chance = {"rank_1": 0.4251, "mean_rank": 118.0, "same_group": 22.2}
    return TextReport(whole, {"gear": (look,), "llamagen-repa": (look,)}, chance, "Block 2 of 4", 235, 5, "minilm")


def test_the_page_is_whole_and_has_every_number(told: TextReport, tmp_path: Path) -> None:
    write_report(told, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text("utf-8")
    found = Whole(text)
    assert HOSTILE in found.text
    assert "<script" not in text
    assert all(source.startswith("data:image/webp;base64,") for source in found.images)
    assert len(found.images) == 2 * (1 + 2 * 3) + 2 * (1 + 2)
    for arm in told.whole.arms:
        for key, name, *_ in METRICS:
            assert name in found.text
            assert f"{arm.metrics[key]:#.4g}" in found.text
    for value in ("0.425", "by chance 118", "22.2", "235", "Block 2 of 4", "a red fox"):
        assert value in found.text
    assert "$" not in found.text.replace("$title ${page}", "")


def test_speed_ups_are_those_of_figure_3_and_said_honestly(told: TextReport) -> None:
    ours, theirs = told.whole.arms
    found = speed_up(ours, theirs, "ntp")
    assert found == reached(ours.curve("ntp"), theirs.curve("ntp"))  # so few points are not smoothed
    assert found is not None
    assert (found.step, found.factor) == (pytest.approx(250.0), pytest.approx(1.6))
    first, second = sooner(told)
    assert "at step 250: 1.60 times as fast" in first
    assert second == "Alignment: not reached. GEAR does not get to where LlamaGen-REPA ends."
    below = replace(ours, log=log([1.0, 1.0, 1.0, 1.0], [-0.1] * 4))
    assert "no speed" in sooner(replace(told, whole=replace(told.whole, arms=(below, theirs))))[0]
    silent = replace(ours, log=[])
    assert sooner(replace(told, whole=replace(told.whole, arms=(silent, theirs))))[0].endswith("not logged in both.")
    assert sooner(replace(told, whole=replace(told.whole, arms=(ours,)))) == []


def test_curves_are_smoothed_first(told: TextReport) -> None:
    """One low point among many does not count as reached."""
    steps = np.arange(1, 1001)
    falling = [{"step": float(i), "ntp": 5.0 - i / 1000, "align_hard": 0.0} for i in steps]
    dip = [dict(line, ntp=3.0) if line["step"] == 100 else line for line in falling]
    ours, theirs = (replace(arm, log=lines) for arm, lines in zip(told.whole.arms, (dip, falling), strict=True))
    found = speed_up(ours, theirs, "ntp")
    assert found is not None
    assert found.factor == pytest.approx(1.0, abs=0.01)


def test_a_map_is_white_at_its_smallest_and_darkest_at_its_largest() -> None:
    weights = np.array([[0.1, 0.2], [0.3, 0.5]], dtype=np.float32)
    pixels = heat(weights)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [8, 48, 107]
    assert pixels[..., 0].flatten().tolist() == sorted(pixels[..., 0].flatten().tolist(), reverse=True)
    assert heat(np.full((2, 2), 0.3, np.float32)).min() == 255


def test_without_maps_it_says_so(told: TextReport) -> None:
    assert "No arm has maps." in page(replace(told, looks={}))
