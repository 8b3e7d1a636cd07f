import os
import pickle
import struct

import numpy as np
import pytest

from gear.store import unpickle
from gear.store.unpickle import UnsafePickle

ARRAYS = [
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    np.arange(6, dtype=">i2"),
    np.array([], dtype=np.uint8),
    np.array([[True, False]]),
]


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: a.dtype.str)
def test_arrays_come_back(array, protocol):
    out = unpickle.loads(pickle.dumps({"a": [array, (array, 1, "text", b"bytes", None, 2.5)]}, protocol=protocol))
    for got in (out["a"][0], out["a"][1][0]):
        assert type(got) is np.ndarray
        assert np.array_equal(got, array)
        assert got.dtype == array.dtype
    assert out["a"][1][1:] == (1, "text", b"bytes", None, 2.5)


def test_the_memory_is_not_shared_with_the_file():
    out = unpickle.loads(pickle.dumps(np.zeros(3, np.uint8), protocol=3))
    out[0] = 1  # frombuffer alone would be read-only


class Calls:
    """A pickle that calls a function."""

    def __init__(self, function: object, *args: object) -> None:
        self.what = (function, args)

    def __reduce__(self) -> tuple[object, ...]:
        return self.what


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("true",)),
        (eval, ("1",)),
        (getattr, (1, "real")),
        (np.load, ("x",)),
        (np.array, ([1],)),
        (bytearray, (b"x",)),
        (complex, (1, 2)),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_every_other_function_is_refused_by_name(function, args):
    with pytest.raises(UnsafePickle, match=rf"asks for .*\.{function.__name__}; only numpy arrays"):
        unpickle.loads(pickle.dumps({"a": np.zeros(2), "b": Calls(function, *args)}, protocol=3))


@pytest.mark.parametrize(
    "name", [b"posix\nsystem", b"builtins\n__import__", b"numpy\nfromfile", b"numpy\nndarray.tofile"]
)
def test_names_in_the_old_opcode_are_refused(name):
    with pytest.raises(UnsafePickle, match="asks for"):
        unpickle.loads(b"c" + name + b"\n(S'true'\ntR.")


def test_names_on_the_stack_are_refused():
    data = b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
    with pytest.raises(UnsafePickle, match=r"asks for posix\.system"):
        unpickle.loads(data)


def test_old_classes_extensions_and_persistent_ids_are_refused():
    for data in (b"(iposix\nsystem\n.", b"\x80\x02\x82\x01.", b"Pan id\n."):
        with pytest.raises(UnsafePickle):
            unpickle.loads(data)


def test_arrays_of_objects_are_refused():
    with pytest.raises(UnsafePickle, match="array of 'O8'"):
        unpickle.loads(pickle.dumps(np.array([{}], dtype=object), protocol=3))
    with pytest.raises(UnsafePickle, match="only numbers"):
        unpickle.loads(pickle.dumps(np.array(["text"]), protocol=3))


def test_the_shape_must_fit_the_bytes():
    good = pickle.dumps(np.zeros((2, 3), np.uint8), protocol=3)
    with pytest.raises(UnsafePickle, match="cannot reshape"):
        unpickle.loads(good.replace(b"K\x02K\x03\x86", b"K\x7fK\x7f\x86"))


def test_stand_ins_do_not_get_out():
    for name in (b"numpy\nndarray\n", b"numpy\ndtype\n", b"numpy.core.multiarray\n_reconstruct\n"):
        with pytest.raises(UnsafePickle):
            unpickle.loads(b"c" + name + b".")
    with pytest.raises(UnsafePickle, match="without contents"):
        unpickle.loads(b"cnumpy\nndarray\n)R.")
    with pytest.raises(UnsafePickle, match="Dtype"):
        unpickle.loads(b"cnumpy\ndtype\n(S'u1'\ntR.")


def test_a_state_cannot_change_the_stand_ins():
    with pytest.raises(UnsafePickle):
        unpickle.loads(b"cnumpy\nndarray\n}S'value'\nI1\nsb.")
    assert np.array_equal(unpickle.loads(pickle.dumps(ARRAYS[0], protocol=3)), ARRAYS[0])


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x04", pickle.dumps({"a": 1})[:-1], b"(" * 100_000])
def test_what_is_no_pickle(data):
    with pytest.raises(UnsafePickle, match="is not a pickle of arrays"):
        unpickle.loads(data)


def test_a_structure_that_holds_itself():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(UnsafePickle, match="RecursionError"):
        unpickle.loads(pickle.dumps(loop))


def test_strings_of_python_2_are_bytes():
    assert unpickle.loads(b"\x80\x02}U\x04data" + b"J" + struct.pack("<i", 5) + b"s.") == {b"data": 5}
