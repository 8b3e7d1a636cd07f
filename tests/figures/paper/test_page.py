"""The page of a run's results: one file, whole, that loads nothing."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gear.figures.paper.found import opened
from gear.figures.paper.page import page, write

pytestmark = pytest.mark.usefixtures("drawn")

Made = Callable[..., dict[str, Any]]
VOID = {"br", "hr", "img", "link", "meta"}


class Outline(HTMLParser):
    """Fails on a tag that is closed out of turn."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def test_it_has_figures_numbers_commands_and_settings(runs: Path) -> None:
    sheet = runs / "gear-l" / "watch" / "samples-00001000.png"
    sheet.parent.mkdir()
    Image.new("RGB", (8, 8)).save(sheet)
    outline = Outline(page(opened([runs / "gear-l", runs / "llamagen-repa-l"])))
    assert len([s for s in outline.sources if s.startswith("data:image/svg+xml;base64,")]) == 5
    assert len([s for s in outline.sources if s.startswith("data:image/png;base64,")]) == 1
    expected = ("gear-l: samples, step 1,000", "9.600", "[9.100, 10.10]", "gear evaluate adm runs/gear-l", "CFG 1.5")
    for text in (*expected, "Generation, ADM protocol", "Guidance sweep", "n = 50,000", "reference.npz"):
        assert text in outline.text


def test_metrics_have_their_names_and_probes_their_numbers(runs: Path, head: Made, scores: Made) -> None:
    found = scores(psnr=21.0, rfid=2.0, ssim=0.5, ssim_gaussian=0.4, l1=0.06, lpips=0.3)
    (runs / "gear-l" / "reconstruction").mkdir()
    file = runs / "gear-l" / "reconstruction" / "results.json"
    file.write_text(json.dumps(head("reconstruction", "gear-l") | {"metrics": found}))
    text = Outline(page(opened([runs / "gear-l"]))).text
    for name in ("rFID ↓", "PSNR, dB ↑", "SSIM ↑", "SSIM (Gaussian) ↑", "L1 ↓", "LPIPS ↓"):
        assert name in text
    for said in ("CKNNA, image", "pre-quantization", "post-quantization", "hard indices", "soft assignment, tau = 0.1"):
        assert said in text
    assert "0.2400" in text
    assert "2,981" in text


def test_a_sweep_stands_once_and_took_its_time_once(runs: Path) -> None:
    whole = json.loads((runs / "gear-b/adm-1.0/results.json").read_text()) | {"seconds": 100.0}
    points = [{"cfg_scale": 1.0, "metrics": whole["metrics"]}]
    (runs / "swept" / "sweep" / "cfg-1").mkdir(parents=True)
    (runs / "swept/sweep/results.json").write_text(json.dumps(whole | {"protocol": "sweep", "points": points}))
    (runs / "swept/sweep/cfg-1/results.json").write_text(json.dumps(whole))
    text = Outline(page(opened([runs / "swept"]))).text
    assert "Generation, ADM protocol" not in text
    assert "Guidance sweep" in text
    assert "[15.50, 16.50]" in text
    assert "Evaluated in 1 min 40 s." in text


def test_it_loads_nothing_and_is_the_same_each_time(runs: Path, tmp_path: Path) -> None:
    found = opened([runs])
    text = page(found)
    assert not re.search(r"https?://(?!www\.w3\.org)|url\(|@import|<script|<iframe", text)
    assert all(source.startswith("data:") for source in Outline(text).sources)
    write(found, None, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text("utf-8") == text


def test_what_is_missing_is_said_with_its_command(runs: Path) -> None:
    text = Outline(page(opened([runs / "gear-b"]))).text
    assert "gear-b has no probe of a generator's layers: `gear probe" in text
    assert "No run has drawn samples." in text


def test_every_text_is_escaped(runs: Path) -> None:
    hostile = '<script>alert("1")</script> & $title ${page}'
    file = runs / "gear-l" / "sweep" / "results.json"
    whole = json.loads(file.read_text())
    whole |= {"command": hostile, "warnings": [hostile], "hardware": hostile}
    whole["points"][0]["metrics"][hostile] = {"value": 1.0}
    file.write_text(json.dumps(whole))
    text = page(opened([runs / "gear-l"], [hostile]))
    assert "<script" not in text
    assert Outline(text).text.count(hostile) > 5
