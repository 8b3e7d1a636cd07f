"""The list of `gear recipes`."""

import re

import pytest

from gear.recipes import RECIPES, ROWS
from gear.recipes.listing import HEADER, WITHOUT, Entry, groups


def entries() -> dict[str, Entry]:
    return {entry.name: entry for group in groups() for entry in group.entries}


def test_every_recipe_is_listed_once() -> None:
    listed = [entry.name for group in groups() for entry in group.entries]
    assert sorted(listed) == sorted(RECIPES)
    assert len({group.title for group in groups()}) == len(groups())
    assert all(group.entries for group in groups())


def test_entries() -> None:
    found = entries()
    assert found["gear-l"] == Entry("gear-l", "GEAR-L, the paper's default", "gear-l", 400_000, 10.63)
    assert found["table01-gear-b-800"].gfid == 14.98  # without guidance
    assert (found["table14-cfg-1.5"].run, found["table14-cfg-1.5"].gfid) == ("gear-l", 3.388)
    assert found["demo"] == Entry("demo", "GEAR on the built-in emoji", "demo", 550, None)
    assert found["warmup-vq"].gfid is None


def test_cells() -> None:
    assert [entry.cells for entry in groups(8)[0].entries] == [
        ("table08-vq", "LlamaGen-REPA-L on VQ-16 = llamagen-repa-l", "400k", "14.72"),
        ("table08-vq-gear", "GEAR-L with VQ-16 = gear-l", "400k", "10.63"),
        ("table08-lfq", "LlamaGen-REPA-L on LFQ-16", "400k", "18.68"),
        ("table08-lfq-gear", "GEAR-L with LFQ-16", "400k", "14.78"),
        ("table08-ibq", "LlamaGen-REPA-L on IBQ-16", "400k", "20.25"),
        ("table08-ibq-gear", "GEAR-L with IBQ-16", "400k", "12.97"),
    ]
    assert entries()["demo"].cells == ("demo", "GEAR on the built-in emoji", "550", "")
    assert entries()["table01-gear-b-300"].cells[2:] == ("1.5M", "16.96")
    assert entries()["table01-gear-b-800"].cells[2:] == ("4M", "14.98")
    assert entries()["llamagen-repa-ifsq"].cells[2:] == ("500k", "")
    assert entries()["table03-gear"].cells == (
        "table03-gear",
        "GEAR-1B, guidance 16 for prompts = table02-gear-390k",
        "391k",
        "",  # its FID is of COCO
    )


def test_all_columns_but_one_leave_space_for_a_sentence_in_80() -> None:
    cells = [HEADER, *(entry.cells for group in groups() for entry in group.entries)]
    widths = [max(len(cell[column]) for cell in cells) for column in (0, 2, 3)]
    assert 80 - sum(widths) - 3 * 2 >= 33


@pytest.mark.parametrize("table", sorted({row.table for row in ROWS.values()}))
def test_one_table(table: int) -> None:
    (group,) = groups(table)
    assert [entry.name for entry in group.entries] == [name for name, row in ROWS.items() if row.table == table]
    assert f"(Table {table})" in group.title


def test_every_other_table_of_the_paper_says_why_it_has_none() -> None:
    listed = {row.table for row in ROWS.values()}
    assert sorted(listed | WITHOUT.keys()) == list(range(1, 20))
    assert not listed & WITHOUT.keys()
    assert max(map(len, WITHOUT.values())) <= 72  # beside the number, in 80 columns


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (4, "a measurement, on the tokenizers of warmup-vq and gear-l"),
        (17, "settings of text-to-image, which the recipes of Tables 2 and 3 have"),
        (19, "guidance in sampling, of the two runs of Table 3"),
        (20, "the paper has none"),
    ],
)
def test_a_table_without_recipes(table: int, why: str) -> None:
    there = "the tables that have recipes are 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18."
    with pytest.raises(ValueError, match=re.escape(f"no recipe belongs to Table {table} ({why}); {there}")):
        groups(table)


def test_rows_that_are_left_out_are_named() -> None:
    (ours,), (public,) = groups(1), groups(18)
    for name in ("DiT", "SiT", "MDT", "MDTv2", "SiT-REPA", "REPA-E"):
        assert name in ours.note
    for name in re.findall(r"table08-[a-z-]+", public.note):
        assert name in RECIPES
