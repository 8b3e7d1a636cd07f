"""The paper's numbers as data, against a digest and the recipes; and ours, put beside them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gear.figures.paper.found import opened
from gear.figures.tables import ours
from gear.figures.tables.table import NOT_RUN, NUMBERS, Cell, Line, load, marked, value
from gear.recipes import RECIPES, ROWS, run_of

Written = Callable[..., Path]

TYPED = {  # rows, columns, digest of all cells: compared with the paper's text when they were written
    1: (22, 13, "4c06915d9ed58ba8"),
    2: (9, 12, "4ad1973072db6e8c"),
    3: (4, 11, "dd88bd0e606e78f3"),
    4: (4, 6, "d886718d80e620ff"),
    5: (5, 9, "5c22a88095cb22cf"),
    6: (4, 9, "71de7e9891a7d09e"),
    7: (3, 9, "573cf26441109942"),
    8: (6, 9, "06ce98a61433954b"),
    9: (6, 9, "0a481f29e52ebff2"),
    10: (8, 9, "abaf424751604743"),
    11: (6, 9, "66f32fc72bdce63f"),
    12: (3, 9, "34b85b6cb7233c9b"),
    13: (6, 11, "e5964215583152a9"),
    14: (5, 6, "bbf282ea666c28cc"),
    15: (10, 10, "afee1b1c2974a961"),
    16: (22, 2, "f2e0e906878ffa42"),
    17: (25, 2, "ec392bcf38b064b3"),
    18: (15, 10, "df0b4d9289212528"),
    19: (6, 14, "ac424b4c8622f1e6"),
}
SPOT = {  # table: row, column, cell
    1: (21, 8, "2.45"),
    2: (8, 7, "115.3"),
    3: (3, 8, "72.881"),
    4: (3, 3, "0.1070 (\N{MINUS SIGN}0.0657)"),
    7: (0, 1, "104.932"),
    13: (5, 10, "0.531"),
    14: (2, 1, "3.388"),
    18: (6, 9, "0.0524"),
    19: (5, 11, "0.4779"),
}
RESULTS = [number for number in NUMBERS if not load(number).whole.get("settings")]


def same(name: str) -> str:
    return run_of(name) if name in RECIPES else name


def made(write: Written, where: str, protocol: str, recipe: str, n: int = 50_000, **more: Any) -> Path:
    """A results file; floats are metrics, but for cfg_scale."""
    scores = {k: v for k, v in more.items() if isinstance(v, float) and k != "cfg_scale"}
    about = {k: v for k, v in more.items() if k not in scores}
    model = {"name": recipe, "recipe": recipe, "stage": about.pop("stage", "gear"), "params": 1}
    model["steps"] = about.pop("steps", 400_000)
    told = {"cfg_scale": 1.0, "interpolation": "bicubic", "n": n} | about
    entries = {name: {"value": v, "n": n} for name, v in scores.items()}
    return write(where, {"protocol": protocol, "metrics": entries, "settings": told, "model": model})


def lines_of(number: int, *folders: Path) -> list[Line]:
    return ours.lines(load(number), opened(folders) if folders else [], same)[0]


def below(lines: list[Line], label: str) -> Line:
    """The line under the paper's row with this first cell."""
    return lines[next(i for i, line in enumerate(lines) if line.cells[0].text == label) + 1]


def texts(line: Line) -> list[str]:
    return [cell.text for cell in line.cells]


# ------------------------------------------------------------------------------------------------- the paper's numbers


def test_no_table_is_missing() -> None:
    assert NUMBERS == tuple(TYPED) == tuple(range(1, 20))
    with pytest.raises(ValueError, match="no Table 20; it has 1 to 19"):
        load(20)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_cells_are_those_that_were_compared(number: int) -> None:
    table, (rows, columns, digest) = load(number), TYPED[number]
    cells = [row["cells"] for row in table.rows]
    assert {len(row) for row in cells} == {len(table.columns)} == {columns}
    assert len(cells) == rows
    assert hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16] == digest
    if number in SPOT:
        row, column, cell = SPOT[number]
        assert cells[row][column] == cell


@pytest.mark.parametrize("number", sorted({row.table for row in ROWS.values()}))
def test_they_agree_with_the_recipes(number: int) -> None:
    """Which were typed by themselves; a recipe is in one row, and every recipe of the table in some."""
    table, found = load(number), []
    for row in table.rows:
        for name in row.get("recipes", ())[:1]:
            if name not in ROWS or ROWS[name].table != number:
                continue
            found.append(name)
            scores: dict[str, float] = {}
            for scale, generated in ROWS[name].generated.items():
                scores |= {f"{key}@{scale}": v for key, v in vars(generated).items()}
            scores |= vars(ROWS[name].rebuilt) if ROWS[name].rebuilt else {}
            for column, text in zip(table.columns, row["cells"], strict=True):
                if "metric" not in column or column["metric"] == "l1":
                    continue
                key = column["metric"].removesuffix("_score")
                if key == "overall":
                    key = "dpg" if column["protocol"] == "dpg" else f"geneval_{column['prompts']}"
                scale = column.get("cfg", row.get("cfg"))
                assert value(text) == scores[key if column["protocol"] == "reconstruction" else f"{key}@{scale}"], text
    assert found == [name for name, row in ROWS.items() if row.table == number]


def test_the_papers_marks_are_found_again() -> None:
    """Table 5 marks two of a column, Table 8 one of each pair and no reconstruction, Table 19 two of each row."""
    marks = {n: [[cell.mark for cell in line.cells] for line in lines_of(n) if line.origin == "paper"] for n in RESULTS}
    assert [row[1] for row in marks[5]] == ["best", "second", "", "", ""]
    assert [row[4] for row in marks[6]] == ["", "best", "second", "second"]
    assert [row[5] for row in marks[8]] == ["best", ""] * 3
    assert {row[8] for row in marks[8]} == {""}
    assert [row.index("best") for row in marks[19]] == [12, 11, 13, 13, 11, 11]
    assert [row.index("second") for row in marks[19]] == [13, 10, 12, 11, 13, 9]
    assert sum(cell == "best" for row in marks[1] for cell in row) == 75
    assert not any(cell for n in (4, 18) for row in marks[n] for cell in row)


@pytest.mark.parametrize(
    ("text", "number"),
    [("15.54*", 15.54), ("0.2440 (\N{MINUS SIGN}0.0045)", 0.244), ("-", None), ("w/ STE", None), ("6th layer", None)],
)
def test_the_number_of_a_cell(text: str, number: float | None) -> None:
    assert value(text) == number


# ---------------------------------------------------------------------------------------------------------------- ours


@pytest.mark.parametrize("number", RESULTS)
def test_without_runs_nothing_was_run(number: int) -> None:
    origins = [line.origin for line in lines_of(number)]
    assert set(origins) == {"paper", NOT_RUN}
    assert origins.count(NOT_RUN) == sum("recipes" in row for row in load(number).rows)


def test_a_result_goes_to_every_row_of_its_run(write: Written) -> None:
    """gear-l is a row of Tables 5 to 9, 12 and 14, under eight names."""
    folder = made(write, "mine", "adm", "gear-l", gfid=10.5, sfid=5.0)
    labels = {5: "0.100", 6: "0.50", 7: "GEAR (Ours)", 12: "GEAR (w/ init.)", 14: "1.00 (w/o CFG)"}
    for number, label in labels.items():
        line = below(lines_of(number, folder), label)
        assert (line.origin, texts(line)[:4]) == ("mine", [label, "10.500", "5.000", NOT_RUN]), number
    assert [line.origin for line in lines_of(9, folder)].count("mine") == 1


def named(write: Written, where: str, recipe: str, **more: Any) -> Path:
    """As `made`, of a run whose folder has another name than its recipe's."""
    file = made(write, where, "adm", recipe, **more) / "results.json"
    whole = json.loads(file.read_text())
    whole["model"]["name"] = where.split("/", maxsplit=1)[0]
    file.write_text(json.dumps(whole))
    return file.parent


def test_a_run_that_went_on_is_in_the_row_of_each_of_its_lengths(write: Written) -> None:
    """And its folder is called by the first."""
    name = "table01-gear-l-300"
    named(write, f"{name}/a", name, steps=1_500_000, gfid=8.66)
    folder = named(write, f"{name}/b", "table01-gear-l-800", steps=4_000_000, gfid=8.61).parent
    found = [texts(line)[1:4:2] for line in lines_of(1, folder) if line.origin == name]
    assert found == [["300", "8.66"], ["800", "8.61"]]


@pytest.mark.parametrize(
    ("number", "recipe", "label"),
    [(5, "table05-tau-0.5", "0.500"), (12, "table12-without-init", "GEAR (w/o init.)")],
)
def test_a_known_recipe_counts_and_not_the_name_of_the_folder(
    number: int, recipe: str, label: str, write: Written
) -> None:
    folder = named(write, "gear-l", recipe, gfid=9.5)
    found = [texts(line)[0] for line in lines_of(number, folder) if line.origin == "gear-l"]
    assert found == [label]


def test_where_no_recipe_is_known_the_name_of_the_folder_counts(write: Written) -> None:
    file = made(write, "gear-l", "adm", "gear-l", gfid=9.5) / "results.json"
    whole = json.loads(file.read_text())
    whole["model"]["recipe"] = None
    file.write_text(json.dumps(whole))
    assert below(lines_of(5, file.parent), "0.100").origin == "gear-l"


def test_scale_and_interpolation_must_be_the_cells(write: Written) -> None:
    guided = made(write, "guided", "adm", "gear-l", cfg_scale=1.5, gfid=3.4)
    assert all(line.origin != "guided" for line in lines_of(5, guided))
    assert texts(below(lines_of(14, guided), "1.50"))[:2] == ["1.50", "3.400"]
    public = made(write, "public", "reconstruction", "ibq-16", interpolation="bilinear", rfid=2.04)
    found = [texts(line) for line in lines_of(18, public) if line.origin == "public"]
    assert found == [["IBQ-16", "Reproduced", "bilinear", "111.0M", "16384", "256", "2.04", *[NOT_RUN] * 3]]


def test_both_halves_of_table_1(write: Written) -> None:
    made(write, "run/a", "adm", "table01-gear-xl-800", gfid=6.0, recall=0.651)
    folder = made(write, "run/b", "adm", "table01-gear-xl-800", cfg_scale=1.5, gfid=2.0).parent
    (line,) = [line for line in lines_of(1, folder) if line.origin == "run"]
    assert texts(line)[:4] == ["GEAR (Ours)", "800", "775M", "6.00"]
    assert (texts(line)[7], texts(line)[8]) == ("0.65", "2.00")


def test_of_several_measurements_the_one_of_most_images_counts(write: Written) -> None:
    made(write, "run/few", "adm", "gear-b", n=1000, gfid=30.0)
    folder = made(write, "run/many", "adm", "gear-b", n=50_000, gfid=22.0).parent
    assert [texts(line)[1] for line in lines_of(9, folder) if line.origin == "run"] == ["22.000"]


def test_a_sweep_fills_table_14(write: Written) -> None:
    points = [{"cfg_scale": s, "metrics": {"gfid": {"value": s, "n": 5}}} for s in (1.0, 1.25, 2.0)]
    folder = write("run", {"protocol": "sweep", "metrics": {}, "points": points, "model": {"recipe": "gear-l"}})
    found = [texts(line)[:2] for line in lines_of(14, folder) if line.origin == "run"]
    assert found == [["1.00 (w/o CFG)", "1.000"], ["1.25", "1.250"], ["2.00", "2.000"]]


def test_a_long_run_fills_the_rows_of_its_checkpoints(write: Written) -> None:
    """Of Table 2, by their steps, as a run of those steps does."""
    for steps, fdd in ((50_000, 400.0), (200_000, 240.0), (390_625, 210.0), (300_000, 220.0)):
        folder = made(write, f"run/{steps}", "gpic", "table02-gear-390k", steps=steps, fdd=fdd).parent
    short = made(write, "short", "gpic", "table02-llamagen-repa-100k", steps=100_000, fdd=330.0)
    found = {line.origin: [] for line in lines_of(2, folder, short)}
    for line in lines_of(2, folder, short):
        found[line.origin].append(texts(line)[:3])
    rows = [["GEAR-1.0B (Ours)", steps, fdd] for steps, fdd in (("50k", "400.0"), ("200k", "240.0"), ("390k", "210.0"))]
    assert found["run"] == rows
    assert found["short"] == [["LlamaGen-REPA-1.0B", "100k", "330.0"]]


def test_a_frozen_tokenizers_reconstruction_is_the_warm_ups(write: Written) -> None:
    folder = made(write, "warm", "reconstruction", "warmup-lfq", rfid=2.4, psnr=21.0)
    found = [texts(line) for line in lines_of(8, folder) if line.origin == "warm"]
    assert found == [["LFQ", *[NOT_RUN] * 5, "21.000", NOT_RUN, "2.400"]]


def test_a_run_that_is_no_row_has_its_own_lines(write: Written) -> None:
    folders = [made(write, name, "adm", "cifar10", gfid=g) for name, g in (("small", 40.0), ("large", 30.0))]
    *_, first, second = lines_of(5, *folders)
    assert [first.origin, second.origin] == ["small", "large"]
    assert texts(first)[:3] == ["small", "40.000", NOT_RUN]
    assert [first.cells[1].mark, second.cells[1].mark] == ["second", "best"]  # among ours, not the paper's
    guided = made(write, "guided", "adm", "cifar10", cfg_scale=1.75, gfid=9.0)
    assert texts(lines_of(14, guided)[-1])[:2] == ["1.75", "9.000"]


def test_ours_do_not_take_the_papers_mark(write: Written) -> None:
    lines = lines_of(8, made(write, "mine", "adm", "gear-l", gfid=1.0))
    ours_of = below(lines, "+GEAR (Ours)")
    assert [line.cells[1].mark for line in lines if line.origin == "paper"] == ["", "best"] * 3
    assert (ours_of.origin, ours_of.cells[1].text, ours_of.cells[1].mark) == ("mine", "1.000", "")  # alone


def test_table_4_reads_probes_of_two_tokenizers(write: Written) -> None:
    def probed(name: str, recipe: str, shift: float, stage: str) -> Path:
        levels = {level: {"cka": 0.1 + shift, "cknna": 0.2 + shift} for level in ("image", "patch")}
        similarity = {"tokenizer": {"pre": levels, "post": levels}}
        model = {"recipe": recipe, "stage": stage}
        return write(name, {"protocol": "probe", "metrics": {}, "similarity": similarity, "model": model})

    folders = [probed("warm", "warmup-vq", 0.0, "warmup"), probed("joint", "gear-l", 0.05, "gear")]
    lines = [line for line in lines_of(4, *folders) if line.origin != "paper"]
    assert [line.origin for line in lines] == ["warm, joint"] * 4
    assert texts(lines[0]) == ["CKNNA", "image", "0.2000", "0.2500", "0.2000", "0.2500"]
    assert texts(lines[3]) == ["CKA", "patch", "0.1000", "0.1500", "0.1000", "0.1500"]
    *_, last = lines_of(4, probed("other", "cifar10", 0.3, "gear"))
    assert texts(last) == ["CKA", "patch", NOT_RUN, "0.4000", NOT_RUN, "0.4000"]


def test_prompts_tell_the_two_genevals_apart(write: Written) -> None:
    folder = made(write, "t2i", "geneval", "text", prompt_set="long", overall=0.5)
    (line,) = [line for line in lines_of(3, folder) if line.origin == "t2i"]
    assert texts(line)[1:3] == [NOT_RUN, "0.500"]


def test_of_what_is_not_said_nothing_is_taken(write: Written) -> None:
    """No set of prompts, no scale: neither short nor without guidance."""
    for name, about in (("scale", {"prompt_set": "short"}), ("prompts", {"prompt_set": None, "cfg_scale": 1.0})):
        folder = made(write, name, "geneval", "text", **{"cfg_scale": None, **about}, overall=0.5)
        assert not [line for line in lines_of(3, folder) if line.origin == name]


def test_bold_compares_equal_images_alone(write: Written) -> None:
    scores = (("a", 1000, 40.0, "x"), ("b", 1000, 30.0, "x"), ("c", 50_000, 20.0, "x"), ("d", 1000, 10.0, "y"))
    folders = []
    for name, n, gfid, reference in scores:
        folder = made(write, name, "adm", "cifar10", n=n, gfid=gfid)
        file = folder / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"reference": {"path": reference}}))
        folders.append(folder)
    cells = {line.origin: line.cells[1] for line in lines_of(5, *folders)[-4:]}
    assert {name: cell.mark for name, cell in cells.items()} == {"a": "second", "b": "best", "c": "", "d": ""}


def test_equal_values_share_the_mark() -> None:
    table = load(7)
    lines = [Line("a", tuple(Cell(t) for t in ["x", v, *[NOT_RUN] * 7]), "all") for v in ("1.000", "1.000", "2.000")]
    assert [line.cells[1].mark for line in marked(table, lines)] == ["best", "best", ""]
