"""Reads arrays out of somebody's pickle without running anything of it.

`pickle.load` calls whatever the file names. Here a file may name three things, the ones a numpy array is made of, and
each is replaced by a stand-in that holds bytes; anything else is refused by name. The rest of a pickle (dict, list,
tuple, str, bytes, numbers) needs no names.
"""

import io
import pickle
from typing import Any

import numpy as np

KINDS = {"u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "b1"}


class UnsafePickle(ValueError):
    """The pickle names something else than a numpy array of numbers: what it named."""


class _Dtype:
    """Stand-in for numpy.dtype(code, align, copy), whose state's second entry is the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, align: object = None, copy: object = None) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.order = "|"
        if self.code not in KINDS:
            raise UnsafePickle(f"the file holds an array of {self.code!r}; only numbers are read.")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else str(state[1])
        if order not in ("<", ">", "|", "="):
            raise UnsafePickle(f"the file holds an array of byte order {order!r}.")
        self.order = order


class _Array:
    """Stand-in for numpy's _reconstruct(ndarray, (0,), b"b"): state = (version, shape, dtype, fortran order, bytes)."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise UnsafePickle("the file holds an array that is not made of plain numbers.")
        flat = np.frombuffer(data, dtype=np.dtype(dtype.order + dtype.code))
        self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UnsafePickle(f"the file asks for {module}.{name}; only numpy arrays of numbers are read.")
        return ALLOWED[module, name]


def loads(data: bytes) -> Any:
    """What a pickle of dicts, lists, tuples, text, bytes, numbers and numeric arrays holds; Python 2 text as bytes.

    Raises `UnsafePickle`, before anything is called, if the pickle names anything else or is not a pickle.
    """
    try:
        return _plain(_Reader(io.BytesIO(data), encoding="bytes").load())
    except UnsafePickle:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        raise UnsafePickle(f"the file is not a pickle of arrays ({type(error).__name__}: {error}).") from error


def _plain(value: Any) -> Any:
    match value:
        case _Array():
            if value.value is None:
                raise UnsafePickle("the file holds an array without contents.")
            return value.value
        case dict():
            return {_plain(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return type(value)(_plain(v) for v in value)
        case None | bool() | int() | float() | str() | bytes():
            return value
        case _:
            raise UnsafePickle(f"the file holds a {type(value).__name__.strip('_')} where a number or text belongs.")
