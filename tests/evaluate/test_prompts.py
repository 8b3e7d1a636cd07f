"""The files of prompts as GenEval, DPG-Bench and COCO publish them, small, and what is wrong with others."""

import json
from pathlib import Path
from typing import Any

import pytest

from gear.evaluate.captions import Caption, captions, rows
from gear.evaluate.prompts import GenevalPrompt, PromptError, Question, dpg, dpg_questions, geneval

METADATA: list[dict[str, Any]] = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "position",
        "include": [{"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
        "prompt": "a photo of a dog left of a cow",
    },
    {
        "tag": "counting",
        "include": [{"class": "cup", "count": 3}],
        "exclude": [{"class": "cup", "count": 4}],
        "prompt": "a photo of three cups",
    },
]
HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"
)
DPG = f"""{HEADER}
a1,"A dog, on a mat",,1,0,entity,whole,entity - whole (dog),Is there a dog?
a1,"A dog, on a mat",,2,0,entity,whole,entity - whole (mat),Is there a mat?
a1,"A dog, on a mat",,3,"1, 2",relation,spatial,"relation - spatial (dog, mat, on)","Is the dog on the mat?"
b,A cup.,,1,0,global,,global - (photo),Is it a photo?
"""


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return path


def test_genevals_metadata_stays_as_it_is(tmp_path: Path) -> None:
    found = geneval(lines(tmp_path / "m.jsonl", METADATA))
    assert found == [GenevalPrompt(m["prompt"], m) for m in METADATA]


def test_geneval_long_draws_other_texts_and_judges_the_same(tmp_path: Path) -> None:
    path = lines(tmp_path / "m.jsonl", METADATA)
    longer = ["A bench of oak.", "A dog, and to its right a cow.", "Three cups, no more."]
    (tmp_path / "long.txt").write_text("\n".join(longer) + "\n")
    for rewritten in (tmp_path / "long.txt", lines(tmp_path / "l.jsonl", [{"prompt": text} for text in longer])):
        assert geneval(path, rewritten) == [GenevalPrompt(t, m) for t, m in zip(longer, METADATA, strict=True)]
    (tmp_path / "long.txt").write_text("One.\n")
    with pytest.raises(PromptError, match=r"a prompt for each of the 3 lines of .*; it has 1"):
        geneval(path, tmp_path / "long.txt")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tag": "colours"}, "line 1 has the tag 'colours'; GenEval's are single_object, two_object"),
        ({"prompt": None}, "line 1 must be an object with a tag, a prompt"),
        ({"include": []}, 'line 1 has nothing to "include"'),
        ({"include": [{"class": "dog", "count": 0}]}, "a class and a count from 1"),
        ({"include": [{"class": "dog", "count": 1, "color": "cyan"}]}, "the colour 'cyan' is none of red"),
        ({"include": [{"class": "dog", "count": 1, "position": ["near", 0]}]}, "a position must be one of left of"),
        ({"include": [{"class": "dog", "count": 1, "position": ["above", 0]}]}, "of an earlier object"),
    ],
)
def test_what_no_rule_could_judge(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=message):
        geneval(lines(tmp_path / "m.jsonl", [METADATA[0] | changed]))


def test_no_geneval_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("a photo of a dog\n")
    with pytest.raises(PromptError, match=r"line 1 is no JSON"):
        geneval(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(PromptError, match="is empty"):
        geneval(tmp_path / "m.jsonl")
    with pytest.raises(PromptError, match="cannot be read"):
        geneval(tmp_path / "none.jsonl")


def test_dpgs_prompts_and_questions(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for key, text in (("b", "A cup.\n"), ("a1", "A dog, on a mat")):
        (tmp_path / "p" / f"{key}.txt").write_text(text)
    assert dpg(tmp_path / "p") == {"a1": "A dog, on a mat", "b": "A cup."}
    (tmp_path / "q.csv").write_text(DPG)
    questions = dpg_questions(tmp_path / "q.csv")
    assert list(questions) == ["a1", "b"]
    assert len(questions["a1"]) == 3  # the first row counts too
    assert questions["a1"][2] == Question(3, "Is the dog on the mat?", (1, 2), ("relation", "spatial"))
    assert questions["b"][0].category == ("global", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DPG.replace("tuple", "triple"), "lacks the columns tuple"),
        (DPG.replace('a1,"A dog, on a mat",,2,0', "a1,,,two,0"), "line 3: proposition_id must be a number"),
        (DPG.replace(",,2,0", ",,2,x"), "line 3: proposition_id must be a number and dependency numbers"),
        (DPG.replace(",,2,0", ",,1,0"), "item a1: two questions have the same"),
        (DPG.replace(",,2,0", ",,2,3"), "item a1: question 2 depends on"),  # which depends on it
        (DPG.replace(",,2,0", ",,2,7"), r"item a1: question 2 depends on \(7,\), which is not there"),
        (HEADER, "has no questions"),
    ],
)
def test_no_dpg_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(PromptError, match=message):
        dpg_questions(tmp_path / "q.csv")


def test_no_dpg_folder(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"has no \.txt files"):
        dpg(tmp_path)
    with pytest.raises(PromptError, match="is no folder"):
        dpg(tmp_path / "none")
    (tmp_path / "a.txt").write_text(" ")
    with pytest.raises(PromptError, match=r"a\.txt is empty: write a prompt there"):
        dpg(tmp_path)
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(PromptError, match=r"a\.txt is empty, and so is 1 more: write"):
        dpg(tmp_path)
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(PromptError, match=r"a\.txt is empty, and so are 2 more: write"):
        dpg(tmp_path)


COCO = {
    "images": [{"id": 9, "file_name": "000009.jpg"}, {"id": 5, "file_name": "000005.jpg"}],
    "annotations": [
        {"image_id": 9, "id": 3, "caption": "a later one"},
        {"image_id": 5, "id": 4, "caption": "A cat.\n"},
        {"image_id": 9, "id": 2, "caption": "A dog."},
    ],
}
EXPECTED = [Caption("000005", "A cat."), Caption("000009", "A dog.")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(COCO)),
        ("a.json", json.dumps({"000005": "A cat.", "000009": "A dog."})),
        (
            "a.json",
            json.dumps(
                [{"file_name": "val/000005.jpg", "caption": ["A cat.", "b"]}, {"key": "000009", "text": "A dog."}]
            ),
        ),
        ("a.jsonl", '{"key": "000005", "caption": "A cat."}\n\n{"key": "000009", "caption": "A dog."}\n'),
        ("a.csv", "image_id,caption,split\n000005,A cat.,val\n000009,A dog.,val\n000009,Another.,val\n"),
        ("a.tsv", "caption\tfile_name\nA cat.\t000005.png\nA dog.\t000009.png\n"),
    ],
)
def test_captions_in_every_format(name: str, text: str, tmp_path: Path) -> None:
    """The first of an image's captions; keys are names without folder and suffix."""
    (tmp_path / name).write_text(text)
    assert captions(tmp_path / name) == EXPECTED


def test_keys_that_become_one_without_their_folders(tmp_path: Path) -> None:
    """Are of two images, unless they say the same."""
    rows = "file_name,caption\ncats/0001.png,A cat.\ncats/0001.png,Another.\n"
    (tmp_path / "a.csv").write_text(rows + "dogs/0001.png,A dog.\n")
    with pytest.raises(PromptError, match=r"cats/0001\.png and dogs/0001\.png have one key, 0001, .* of its own"):
        captions(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(rows + "0001.jpg,A cat.\n")
    assert captions(tmp_path / "b.csv") == [Caption("0001", "A cat.")]


def test_every_row_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_id,caption\n1,a red heart\n1,a blue cat\n\n2,a dog\n3, \n")
    assert [row.text for row in rows(tmp_path / "a.csv")] == ["a red heart", "a blue cat", "a dog"]


def test_captions_without_keys_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A cat.\nA dog.\n")
    (tmp_path / "a.json").write_text('["A cat.", "A dog."]')
    for name in ("a.txt", "a.json"):
        assert captions(tmp_path / name) == [Caption("000000", "A cat."), Caption("000001", "A dog.")]


def test_lines_end_where_an_editor_ends_them(tmp_path: Path) -> None:
    """Other separators of Unicode are in a text: three captions would be drawn of these two."""
    texts = ["a cat\u2028sits", "a\x0bdog\x0c and\x85a cow"]
    for i, end in enumerate(("\n", "\r\n")):
        (tmp_path / f"{i}.txt").write_bytes(f" \n{end.join(texts)}{end}\n".encode())
        assert [row.text for row in rows(tmp_path / f"{i}.txt")] == texts
        assert [p.prompt for p in geneval(lines(tmp_path / "m.jsonl", METADATA[:2]), tmp_path / f"{i}.txt")] == texts


def test_prompts_are_kept_as_they_are_written(tmp_path: Path) -> None:
    """For official scorers, which look them up; the text encoder has its own blanks."""
    (tmp_path / "a.txt").write_text("a  red\tcat\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "k.txt").write_text("a  red\ncat\n")
    assert [row.text for row in rows(tmp_path / "a.txt")] == ["a  red\tcat"]
    assert dpg(tmp_path / "p") == {"k": "a  red\ncat"}


def test_captions_of_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"key": ["000005", "000009"], "caption": ["A cat.", "A dog."], "image": [b"1", b"2"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert captions(tmp_path / "a.parquet") == EXPECTED
    (tmp_path / "b.parquet").write_bytes(b"nothing")
    with pytest.raises(PromptError, match="cannot be read as parquet"):
        captions(tmp_path / "b.parquet")


def test_what_are_no_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text, message in (
        ("a.json", "{", "cannot be read as .json"),
        ("b.json", "[3]", "row 1 must be a text or an object; it is a int"),
        ("c.json", '[{"key": "a", "label": "dog"}]', "row 1 has no text under caption.*; it has key, label"),
        ("d.json", '{"images": [{}], "annotations": []}', r"captions_val2017\.json\): it lacks 'id'"),
        ("e.txt", "\n", r"holds no captions\."),
        ("h.csv", "id,prompt\n1, \n2,\n3\n", r"holds no captions: its 3 rows are blank\."),
        (
            "i.csv",
            "a red cat\na dog\n",
            "the first row must name the columns, one of them caption, .*; it is 'a red cat'",
        ),
        ("j.csv", "prompt\na cup\na cat, a dog\n", "line 3 has more cells than the first row .* in double quotes"),
        ("k.csv", "", r"holds no captions\."),
        ("l.jsonl", '{"prompt": "a \\ud83d"}', r"row 1 has half of a character \('a \\ud83d'\)"),
        ("f.doc", "", "captions are read from .json, .jsonl"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(PromptError, match=message):
            captions(tmp_path / name)
    with pytest.raises(PromptError, match="does not exist"):
        captions(tmp_path / "none.json")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "g.parquet").write_bytes(b"PAR1")
    with pytest.raises(PromptError, match="pip install pyarrow"):
        captions(tmp_path / "g.parquet")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'id,prompt\n1,A cat.\n2, \n3\n4,"A dog, a fox."\n'),
        ("a.jsonl", '{"id": 1, "prompt": "A cat."}\n{"id": 2, "prompt": null}\n{"caption": ""}\n'
                    '{"id": 4, "prompt": ["A dog, a fox."]}'),
    ],
)  # fmt: skip
def test_blank_rows_are_left_out_and_counted(
    name: str, text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(text)
    with caplog.at_level("WARNING", "gear"):
        assert captions(tmp_path / name) == [Caption("1", "A cat."), Caption("4", "A dog, a fox.")]
    said = f"warning: {tmp_path / name}: 2 of 4 rows are blank and left out."
    assert [record.getMessage() for record in caplog.records] == [said]


def test_prompts_are_called_prompts(tmp_path: Path) -> None:
    for name, message in (("a.txt", "it should hold prompts"), ("a.doc", "prompts are read from .json")):
        with pytest.raises(PromptError, match=message):
            captions(tmp_path / name, "prompts")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(PromptError, match="holds no prompts"):
        captions(tmp_path / "a.txt", "prompts")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
def test_a_file_that_is_not_utf8(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes('{"caption": "a cat"}\n{"caption": "a café"}\n'.encode("latin-1"))
    with pytest.raises(PromptError, match=r"line 2 is not UTF-8 \(byte 0xe9\): save the file as UTF-8"):
        captions(tmp_path / name)
    with pytest.raises(PromptError, match="line 2 is not UTF-8"):
        geneval(tmp_path / name)


def test_a_prompt_of_dpg_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "k.txt").write_bytes(b"a caf\xe9")
    with pytest.raises(PromptError, match=r"k\.txt, line 1 is not UTF-8"):
        dpg(tmp_path)


def test_a_line_of_captions_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"caption": "a"}\n{\n')
    with pytest.raises(PromptError, match=r"a\.jsonl, line 2 is no JSON"):
        captions(tmp_path / "a.jsonl")
