"""One rule for whether tensors are exactly those that are wanted."""

from typing import Any

import pytest
import torch

from gear.store.strict import Like, clean, faults, finite, not_finite, some

WANTED = {
    "a": torch.empty(2, 3, device="meta"),
    "b": Like((2,)),
    "n": Like((), torch.int64),
    "z": Like((1,), torch.complex64),
}
GOOD = {
    "a": torch.ones(2, 3),
    "b": torch.ones(2),
    "n": torch.tensor(3),
    "z": torch.ones(1, dtype=torch.complex64),
}
FLOATS = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_fits_has_no_fault_in_any_precision(dtype: torch.dtype) -> None:
    assert faults(GOOD | {"b": torch.ones(2).to(dtype), "n": torch.tensor(3, dtype=torch.uint8)}, WANTED) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("a", None, "it lacks a"),
        ("c", torch.ones(1), "c has no place here"),
        ("a", torch.ones(3, 2), "its a is (3, 2) and should be (2, 3)"),
        ("n", torch.ones(1, dtype=torch.int64), "its n is (1,) and should be ()"),
        ("b", torch.ones(2, dtype=torch.int32), "its b is of torch.int32 and should be of torch.float32"),
        ("b", torch.ones(2, dtype=torch.complex64), "its b is of torch.complex64 and should be of torch.float32"),
        ("n", torch.tensor(1.0), "its n is of torch.float32 and should be of torch.int64"),
        ("n", torch.tensor(1j), "its n is of torch.complex64 and should be of torch.int64"),
        ("b", torch.tensor([1, torch.nan]), "its b has NaN or infinity"),
        ("b", torch.tensor([1, -torch.inf]).half(), "its b has NaN or infinity"),
        ("b", torch.tensor([1, 1e300], dtype=torch.float64), "its b has NaN or infinity"),  # in float32
        ("b", torch.tensor([1, torch.nan]).to(torch.float8_e4m3fn), "its b has NaN or infinity"),
        ("z", torch.tensor([complex(0, torch.nan)]), "its z has NaN or infinity"),
        ("a", torch.ones(2, 3).to_sparse(), "its a is no plain tensor"),
        ("a", torch.ones(2, 3, device="meta"), "its a is no plain tensor"),
        ("a", {"b": torch.ones(2)}, "its a is no plain tensor"),
    ],
)
def test_each_fault_is_named(name: str, value: Any, said: str) -> None:
    found = {key: t for key, t in (GOOD | {name: value}).items() if t is not None}
    assert faults(found, WANTED) == [said]


def test_faults_come_by_name() -> None:
    assert faults({"z": torch.ones(2), "c": torch.ones(1)}, {"a": Like((1,)), "z": Like((1,))}) == [
        "it lacks a",
        "c has no place here",
        "its z is (2,) and should be (1,)",
    ]


def test_the_first_that_is_not_finite() -> None:
    assert not_finite(GOOD) is None
    assert not_finite(GOOD | {"b": torch.tensor([torch.inf]), "n": torch.tensor(torch.nan)}) == "b"
    assert finite(torch.ones(2, dtype=torch.bool))


def test_only_a_few_are_told() -> None:
    assert some(["a", "b", "c"]) == "a; b; c"
    assert some(list("abcdef"), ", ") == "a, b, c, and 3 more"


@pytest.mark.parametrize("name", ["module.a.b", "_orig_mod.module.a.b", "a._orig_mod.b", "a.b"])
def test_wrappers_leave_names(name: str) -> None:
    assert clean(name) == "a.b"
    assert clean("module") == "module"
