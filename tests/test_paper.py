"""PAPER.md names functions, files and tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAPER = (ROOT / "PAPER.md").read_text()


def test_files_it_names_exist():
    files = set(re.findall(r"gear/[\w/]+(?:\.py|/)", PAPER))
    assert len(files) > 8
    assert not [name for name in files if not (ROOT / name).exists()]


def test_tests_it_names_exist():
    files = set(re.findall(r"[\w/]*test_\w+\.py", PAPER))
    assert not [name for name in files if not (ROOT / "tests" / name).exists()]
    source = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"\btest_\w+\b(?!\.py)", PAPER))
    assert len(names) > 10
    assert not [name for name in names if f"def {name}(" not in source]


def test_equations_1_to_12_have_a_line_each():
    assert [int(n) for n in re.findall(r"^\| eq\. (\d+),", PAPER, re.M)] == list(range(1, 13))
