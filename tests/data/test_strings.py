import numpy as np
import pytest

from gear.data import strings
from gear.data.strings import Strings

TEXTS = ("a.png", "", "grün/ü.jpg", "b\udcff.png", "😀", "x" * 300)  # one name is not UTF-8


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strings, "AT_ONCE", 2)


def test_a_sequence_of_the_same_texts():
    packed = Strings.of(TEXTS)
    assert list(packed) == list(TEXTS)
    assert packed == TEXTS
    assert TEXTS == packed  # noqa: SIM300 - asks the tuple first
    assert packed != (*TEXTS[:-1], "y")
    assert packed != TEXTS[:-1]
    assert (packed[-1], packed[1:3], packed.index("😀")) == (TEXTS[-1], TEXTS[1:3], 4)
    assert packed[::2] == Strings.of(TEXTS[::2])
    with pytest.raises(IndexError):
        packed[len(TEXTS)]
    with pytest.raises(TypeError):
        hash(packed)


@pytest.mark.parametrize("index", [[], [5, 0, 0, 3], list(range(6)), np.array([2, 1])])
def test_rows(index):
    assert Strings.of(TEXTS).rows(index) == tuple(TEXTS[i] for i in index)


def test_prefixed_and_chained():
    packed = Strings.of(TEXTS)
    assert packed.prefixed("é/") == tuple(f"é/{text}" for text in TEXTS)
    assert Strings.chained([packed, Strings.of(()), packed.rows([1])]) == (*TEXTS, "")
    assert Strings.chained([]) == ()
    assert Strings.of(()).prefixed("a") == ()
