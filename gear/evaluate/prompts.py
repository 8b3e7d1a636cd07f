"""The prompt files of GenEval and DPG-Bench, as their authors publish them."""

import csv
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
TASKS = {  # GenEval's tag -> the name of the number
    "single_object": "single_object",
    "two_object": "two_object",
    "counting": "counting",
    "colors": "colors",
    "position": "position",
    "color_attr": "color_attribution",
}
COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")  # read of dpg_bench.csv


class PromptError(ValueError):
    """A file of prompts that is not what was expected: which, where, what to do."""


@dataclass(frozen=True)
class GenevalPrompt:
    """
    prompt: the text to draw. metadata: the line of evaluation_metadata.jsonl, which the official scorer reads.
    """

    prompt: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """
    id: from 1, within a prompt. parents: questions that must be answered yes for this one to count. category: of two
    levels, as "entity" and "whole".
    """

    id: int
    text: str
    parents: tuple[int, ...]
    category: tuple[str, str]


def geneval(path: Path, rewritten: Path | None = None) -> list[GenevalPrompt]:
    """evaluation_metadata.jsonl: 553 lines of {"tag", "include", "exclude", "prompt"}.

    rewritten: the longer prompts that a language model has made of them, in the same order, for the paper's GenEval
    "long": JSON lines with a "prompt", or text, one a line. What is judged stays. Raises `PromptError`.
    """
    found = [checked(record, f"{path}, line {i}") for i, record in json_lines(path)]
    if not found:
        raise PromptError(f"{path} is empty; GenEval's evaluation_metadata.jsonl has 553 lines.")
    if rewritten is None:
        return [GenevalPrompt(metadata["prompt"], metadata) for metadata in found]
    longer = _rewritten(rewritten)
    if len(longer) != len(found):
        raise PromptError(
            f"{rewritten} must have a prompt for each of the {len(found)} lines of {path}, in their order; it has "
            f"{len(longer)}."
        )
    return [GenevalPrompt(text, metadata) for text, metadata in zip(longer, found, strict=True)]


def checked(record: Any, where: str) -> dict[str, Any]:
    """A line of GenEval's metadata as it is. Raises `PromptError` for what no rule of GenEval could judge."""
    if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("prompt", "tag")):
        raise PromptError(f"{where} must be an object with a tag, a prompt and what to include: GenEval's metadata.")
    if record["tag"] not in TASKS:
        raise PromptError(f"{where} has the tag {record['tag']!r}; GenEval's are {', '.join(TASKS)}.")
    for kind in ("include", "exclude"):
        for number, wanted in enumerate(record.get(kind, [])):
            if not (isinstance(wanted, dict) and isinstance(wanted.get("class"), str) and _count(wanted.get("count"))):
                raise PromptError(f'{where}: "{kind}" must hold objects with a class and a count from 1.')
            if wanted.get("color", COLOURS[0]) not in COLOURS:
                raise PromptError(f"{where}: the colour {wanted['color']!r} is none of {', '.join(COLOURS)}.")
            if "position" in wanted and not _position(wanted["position"], number):
                raise PromptError(f"{where}: a position must be one of {', '.join(RELATIONS)} of an earlier object.")
    if not record.get("include"):
        raise PromptError(f'{where} has nothing to "include".')
    return record


def dpg(folder: Path) -> dict[str, str]:
    """A folder of KEY.txt, a prompt each (DPG-Bench has 1065), sorted by key. Raises `PromptError`."""
    if not folder.is_dir():
        raise PromptError(f"{folder} is no folder; DPG-Bench's prompts are a folder of .txt files, one a prompt.")
    prompts = {path.stem: read(path).strip() for path in sorted(folder.glob("*.txt"))}
    if not prompts:
        raise PromptError(f"{folder} has no .txt files; DPG-Bench's prompts are a folder of them, one a prompt.")
    if empty := [key for key, text in prompts.items() if not text]:
        others = f", and so {'is' if len(empty) == 2 else 'are'} {len(empty) - 1} more" if len(empty) > 1 else ""
        raise PromptError(f"{folder / empty[0]}.txt is empty{others}: write a prompt there, or delete the file.")
    return prompts


def dpg_questions(path: Path) -> dict[str, tuple[Question, ...]]:
    """dpg_bench.csv: the questions of each prompt, by its key. Raises `PromptError`.

    Every row counts. The official script leaves out the first row of the file, and then the prompt it belongs to,
    whose other questions depend on it.
    """
    questions: dict[str, list[Question]] = {}
    with _opened(path) as file:
        rows = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise PromptError(
                f"{path} lacks the columns {', '.join(missing)}: DPG-Bench's questions are dpg_bench.csv."
            )
        for row in rows:
            try:
                parents = tuple(int(part) for part in row["dependency"].split(",") if int(part) != 0)
                question = Question(
                    int(row["proposition_id"]),
                    row["question_natural_language"].strip(),
                    parents,
                    _category(row["tuple"]),
                )
            except (ValueError, AttributeError, TypeError):
                raise PromptError(
                    f"{path}, line {rows.line_num}: proposition_id must be a number and dependency numbers, with a "
                    "tuple and a question beside them."
                ) from None
            questions.setdefault(row["item_id"].strip(), []).append(question)
    if not questions:
        raise PromptError(f"{path} has no questions.")
    for key, asked in questions.items():
        _check_parents(asked, f"{path}, item {key}")
    return {key: tuple(asked) for key, asked in questions.items()}


def _check_parents(questions: list[Question], where: str) -> None:
    parents = {q.id: q.parents for q in questions}
    if len(parents) < len(questions):
        raise PromptError(f"{where}: two questions have the same proposition_id.")
    settled: set[int] = set()
    while len(settled) < len(parents):
        more = {id for id, above in parents.items() if id not in settled and settled.issuperset(above)}
        if not more:
            id = min(parents.keys() - settled)
            raise PromptError(f"{where}: question {id} depends on {parents[id]}, which is not there or depends on it.")
        settled |= more


def _category(text: str) -> tuple[str, str]:
    """`entity - whole (dog)` -> entity, whole."""
    broad, _, narrow = text.partition("(")[0].partition("-")
    if not broad.strip():
        raise ValueError(text)
    return broad.strip(), narrow.strip()


def _count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _position(value: Any, number: int) -> bool:
    """["left of", 0]: a relation to the object of a lower number."""
    match value:
        case [str(relation), int(target)]:
            return relation in RELATIONS and 0 <= target < number
    return False


def _rewritten(path: Path) -> list[str]:
    if path.suffix in (".jsonl", ".json"):
        records = [record for _, record in json_lines(path)]
        if not all(isinstance(record, dict) and isinstance(record.get("prompt"), str) for record in records):
            raise PromptError(f'every line of {path} must be an object with a "prompt".')
        return [record["prompt"] for record in records]
    return [line.strip() for line in lines(path)]


def json_lines(path: Path) -> Iterable[tuple[int, Any]]:
    """(line from 1, what it holds). Raises `PromptError` for a line that is no JSON."""
    with _opened(path) as file:
        for i, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield i, json.loads(line)
            except json.JSONDecodeError as error:
                raise PromptError(
                    f"{path}, line {i} is no JSON ({error.msg}): one object a line was expected."
                ) from error


def lines(path: Path) -> list[str]:
    """Of a text file, those that are not blank. They end where an editor ends one: `str.splitlines` would cut a text at
    U+2028 or a form feed in it, too. Raises `PromptError`."""
    return [line for line in re.split(r"\r?\n", read(path)) if line.strip()]


def read(path: Path) -> str:
    """A file of text, without the mark some begin with. Raises `PromptError` for one that is not UTF-8: where."""
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise PromptError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        line, byte = error.object[: error.start].count(b"\n") + 1, error.object[error.start]
        raise PromptError(f"{path}, line {line} is not UTF-8 (byte 0x{byte:02x}): save the file as UTF-8.") from None


def _opened(path: Path) -> io.StringIO:
    return io.StringIO(read(path), newline="")
