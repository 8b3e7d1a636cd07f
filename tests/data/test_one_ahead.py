import threading

import pytest

from gear.data.one_ahead import OneAhead


def test_any_order_of_steps_gives_what_each_is() -> None:
    made: list[int] = []

    def square(step: int) -> int:
        made.append(step)
        return step**2

    ahead = OneAhead(square)
    steps = [0, 1, 2, 2, 7, 8, 3, 4]
    assert [ahead(step) for step in steps] == [step**2 for step in steps]
    assert made[:3] == [0, 1, 2]  # consecutive ones are made once
    assert (made.count(0), made.count(1)) == (1, 1)


def test_the_next_one_is_made_while_this_one_is_used() -> None:
    begun = {step: threading.Event() for step in range(4)}

    def make(step: int) -> int:
        begun[step].set()
        return step

    ahead = OneAhead(make)
    for step in range(3):
        assert ahead(step) == step
        assert begun[step + 1].wait(10)


def test_an_error_comes_up_in_its_own_step() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("two")
        return step

    ahead = OneAhead(make)
    assert [ahead(0), ahead(1)] == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="two"):
            ahead(2)
    assert ahead(3) == 3
