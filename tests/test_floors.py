"""What the hot paths must do is counted right, and the table of floors comes out at a small size."""

import json
import sys

import pytest
import torch

from bench import ceilings, decoding, floors, paths, work
from bench.joint import Case, config_of
from gear.counting import Flops
from gear.plan import plan

TINY = Case("demo", 32, 2, "float32", "cpu")


@pytest.fixture(autouse=True)
def rough(monkeypatch) -> None:
    """Ceilings that are known, and small images."""
    known = ceilings.Ceilings(float32=2e9, bfloat16=4e9, bandwidth=1e9, exponentials=1e8)
    monkeypatch.setattr(work, "ceilings", lambda device: known)
    monkeypatch.setattr(floors, "ceilings", lambda device: known)
    monkeypatch.setattr(decoding, "SIZE", (50, 41))
    monkeypatch.setattr(decoding, "R", 32)
    monkeypatch.setattr(floors, "FEATURES", 1)
    monkeypatch.setattr(floors, "PHOTOS", 1)


def test_the_work_of_products_is_counted():
    a, b = torch.randn(8, 16), torch.randn(4, 16)
    found = work.counted(lambda: torch.nn.functional.linear(a, b).relu())
    assert found == work.Work(Flops(0, 2 * 8 * 16 * 4), 4 * (8 * 16 + 16 * 4 + 8 * 4))
    out = torch.empty(8, 4)
    assert work.counted(lambda: torch.mm(a, b.T, out=out)) == found
    low = work.counted(lambda: a.bfloat16() @ b.T.bfloat16())
    assert low == work.Work(Flops(2 * 8 * 16 * 4, 0), found.moved / 2)
    assert found.seconds("cpu") == max(1024 / 2e9, found.moved / 1e9)
    assert found.bound("cpu") == "bytes"
    assert work.Work(exponentials=1e8, moved=1e6).seconds("cpu") == 1.0


def test_the_read_outs_do_what_their_formulas_say_and_no_less():
    """On the CPU every product is counted; ours makes A anew where one pass could share it."""
    s = paths.setting(TINY)
    formulas = {path.name: path for path in paths.parts(s) if path.name in ("read-out", "entropy")}
    for path in formulas.values():
        assert path.work is not None
        made = work.counted(path.run).flops.total
        assert path.work.flops.total <= made < 1.5 * path.work.flops.total


def test_a_token_does_what_its_formula_says():
    net = paths.setting(TINY).groups[2].module.eval()
    x, past = torch.randn(3, 1, net.embedding.shape[1]), net.empty_past(3)
    made = work.counted(lambda: torch.no_grad()(net.decode)(x, past))
    found = work.token(net, rows=3, past=1, weight=4, number=4)
    assert found.flops == made.flops
    assert found.moved <= made.moved
    low = work.token(net, rows=3, past=1, weight=1, number=2)
    assert low.flops == Flops(found.flops.float32, 0)
    assert found.moved / 4 < low.moved < found.moved / 2


def test_an_update_moves_each_number_once():
    """The gradient for its norm; p, g, m, v and the average in, all but g out."""
    assert work.update(10).moved == 10 * 4 * (1 + 5 + 4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_parts_are_the_whole_step(precision):
    """Their operations are what `gear plan` counts on the step itself, but for what torch does not count."""
    case = Case("demo", 64, 2, precision, "cpu")
    s = paths.setting(case)
    of_parts = sum((floors.measured(path, "cpu").work.flops for path in paths.parts(s)), Flops(0, 0))
    of_step = plan(config_of(case)).flops
    whole = of_step["tokenizer"] + of_step["generator"]
    assert of_parts.total == pytest.approx(whole.total, rel=0.02)
    assert of_parts.bfloat16 == pytest.approx(whole.bfloat16, rel=0.02)


def test_a_table_of_floors(monkeypatch, capsys):
    monkeypatch.setattr(paths, "SAMPLED", (1, 2))
    command = ["floors", "--recipe", "demo", "--resolution", "32", "--batch", "2", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    floors.main()
    rows = {row["path"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {"encode", "head", "AdamW", "sum of parts", "joint step", "a token of 2 images, CFG"} <= rows.keys()
    assert rows["joint step"]["floor"] == rows["sum of parts"]["floor"] > rows["encode"]["floor"]
    counted = [row for row in rows.values() if row["floor"] is not None]
    assert all(row["share"] == pytest.approx(row["floor"] / row["seconds"]) for row in counted)
    assert rows["AdamW"]["bound"] == "bytes"
    assert len(rows) - len(counted) == 1  # the JPEG files
    floors.show([floors.Gap("encode", work.Work(Flops(0, 10**12), 1e9), 1.0, 4.0, "arithmetic")], "here")
    assert "25%" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--batch", "--resolution"])
def test_there_is_an_image_and_it_has_a_size(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["floors", option, "0"])
    with pytest.raises(SystemExit):
        floors.main()
    assert "a whole number from 1 on is wanted, and '0' is none." in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["warmup-vq", "demo-repa", "table02-gear-390k"])
def test_only_a_joint_step_has_floors(recipe, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["floors", "--recipe", recipe, "--device", "cpu"])
    with pytest.raises(SystemExit):
        floors.main()
    assert "choose gear-b" in capsys.readouterr().err
