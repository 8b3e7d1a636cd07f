"""The demo end to end, at two steps an arm: every piece is made, the page shows it, and a second call only reads."""

import json
from dataclasses import replace

import pytest

from gear import demo
from gear.config import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "GENERATED", 32)
        out = tmp_path_factory.mktemp("demo")
        demo.demo(out, 2, "cpu")
        yield out


def test_every_arm_trained_and_measured(folder):
    for key, metrics in {"gear": 4, "llamagen-repa": 4, "naive": 2}.items():
        found = json.loads((folder / key / "measured.json").read_text())
        assert sum(value is not None for value in found["metrics"].values()) == metrics
        assert found["metrics"]["psnr"] > 10
        assert len((folder / key / "log.jsonl").read_text().splitlines()) == 1


def test_the_page_shows_it(folder):
    page = (folder / "report.html").read_text()
    for text in ("GEAR", "LlamaGen-REPA", "Naive straight-through", "smileys", "EfficientNet-Lite1", "gear train demo"):
        assert text in page
    assert page.count("data:image/") >= 3


def test_a_second_call_measures_nothing_again(folder, monkeypatch):
    monkeypatch.setattr(demo.Judge, "measure", lambda *_: pytest.fail("measured again"))
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
    (folder / "report.html").unlink()
    demo.demo(folder, 2, "cpu")
    assert (folder / "report.html").exists()
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")} == before


def test_another_demo_in_the_same_folder_is_refused(folder, monkeypatch):
    gear, *others = demo.CONTENDERS
    other = replace(gear, recipe=lambda: replace(gear.recipe(), seed=1))
    monkeypatch.setattr(demo, "CONTENDERS", (other, *others))
    with pytest.raises(ConfigError, match="seed: 0 -> 1"):
        demo.demo(folder, 2, "cpu")
