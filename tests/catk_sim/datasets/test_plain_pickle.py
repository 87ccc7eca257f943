import codecs
import collections
import contextlib
import io
import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catk_sim.datasets.errors import DataError
from catk_sim.datasets.plain_pickle import MAX_CELLS, MAX_DEPTH, load_plain
from tests.catk_sim.datasets.foreign import womd_log

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
)
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=5) | st.integers(-5, 300), inner, max_size=5),
        st.sets(st.text(max_size=5) | st.integers(), max_size=5).filter(
            lambda items: all(not isinstance(x, int) or abs(x) < 2**63 for x in items)
        ),
    ),
    max_leaves=20,
)


def test_sets_of_all_protocols_are_read() -> None:
    for protocol in PROTOCOLS:
        assert load_plain(pickle.dumps({"a", "b", 3}, protocol)) == {"a", "b", 3}


@settings(max_examples=100)
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_are_read_as_pickle_reads_them(value: Any, protocol: int) -> None:
    assert load_plain(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "<i4", ">i8", "f2", "<f4", ">f8"])
def test_arrays_are_read_as_pickle_reads_them(protocol: int, dtype: str) -> None:
    for shape in [(), (0,), (3,), (2, 3), (2, 0, 3)]:
        numbers = np.asarray(np.arange(int(np.prod(shape))).reshape(shape) % 2, dtype)
        for array in (numbers, np.asfortranarray(numbers)):
            found = load_plain(pickle.dumps({"a": array, "again": [array]}, protocol))
            assert found["a"].dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found["a"], array)
            np.testing.assert_array_equal(found["again"][0], array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpys_scalars_become_pythons(protocol: int) -> None:
    value = [np.float32(1.5), np.float64(-2.0), np.int64(7), np.bool_(True)]
    found = load_plain(pickle.dumps(value, protocol))
    assert found == [1.5, -2.0, 7, True]
    assert list(map(type, found)) == [float, float, int, bool]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_kinds_of_dicts_become_dicts(protocol: int) -> None:
    value = [collections.defaultdict(int, a=1), collections.OrderedDict(b=2)]
    found = load_plain(pickle.dumps(value, protocol))
    assert found == [{"a": 1}, {"b": 2}]
    assert list(map(type, found)) == [dict, dict]


def test_files_of_numpy_1_and_2_are_read() -> None:
    data = pickle.dumps(np.arange(3), 2)
    assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        other = data.replace(b"numpy._core.multiarray", module)
        assert load_plain(other).tolist() == [0, 1, 2]


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def marker(tmp_path: Path) -> str:
    return f"touch {tmp_path / 'harmed'}"


MALICIOUS = {
    "a shell": lambda command: Call(os.system, command),
    "eval": lambda command: Call(eval, f"__import__('os').system({command!r})"),
    "exec": lambda command: Call(exec, f"import os; os.system({command!r})"),
    "an import": lambda command: Call(__import__, "os"),
    "getattr": lambda command: Call(getattr, Call(__import__, "os"), "system"),
    "another pickle": lambda command: Call(pickle.loads, pickle.dumps(Call(os.system, command))),
    "a file": lambda command: Call(open, command.removeprefix("touch "), "w"),
    "numpy's own pickles": lambda command: Call(np.load, command, None, True),
    "a memory map": lambda command: Call(np.memmap, command.removeprefix("touch ")),
    "an object": lambda command: io.BytesIO(b""),
    "a class": lambda command: Path,
    "another codec": lambda command: Call(codecs.encode, "a", "rot13"),
    "a factory of defaults": lambda command: collections.defaultdict(breakpoint),
    "objects in an array": lambda command: np.array([Call(os.system, command)], object),
    "a structured array": lambda command: np.zeros(2, [("a", "f4")]),
    "texts in an array": lambda command: np.array(["a"]),
    "a call in a dict's place": lambda command: {"a": [Call(os.system, command)]},
    "the state of a call": lambda command: Call(np.dtype, "f4", False, True, state=Call(eval, "1")),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_nothing_is_called(name: str, tmp_path: Path) -> None:
    for protocol in PROTOCOLS:
        data = pickle.dumps(MALICIOUS[name](marker(tmp_path)), protocol)
        with pytest.raises(DataError, match=r"^some\.pkl: wanted a pickle of plain containers"):
            load_plain(data, "some.pkl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        # Text opcodes of protocol 0; one for each way to name something.
        b"cos\nsystem\n(S'touch harmed'\ntR.",
        b"(S'touch harmed'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch harmed'\no.",
        b"\x80\x02(cos\nsystem\nX\x0c\x00\x00\x00touch harmedo.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch harmed\x85R.",
        b"\x80\x02cnumpy\ndtype\n)\x81.",
        b"\x80\x04cnumpy\ndtype\n)}\x92.",
        b"\x80\x02cno\\where\nname\n.",
        # A name within a name, which pickle would resolve.
        b"\x80\x04\x8c\x05numpy\x8c\x0fcore.os.sys.api\x93.",
        # The registry of extensions, and names that are left to whoever reads.
        b"\x80\x02\x82\x01.",
        b"\x80\x02Pname\n.",
        b"\x80\x02X\x01\x00\x00\x00aQ.",
        b"\x80\x05\x97.",
        # A state for something that is not an array.
        b"\x80\x02cnumpy\ndtype\n}X\x0c\x00\x00\x00__setstate__K\x01sb.",
        b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb.",
        # A call of what is no name, or of a name that is none of a function.
        b"\x80\x02N)R.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        # A byte order that numpy does not know.
        pickle.dumps(np.dtype("f4"), 2).replace(b"<", b"!"),
    ],
)
def test_other_opcodes_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wanted a pickle of plain containers"):
        load_plain(data)


def test_what_stands_in_for_numpy_cannot_be_changed() -> None:
    """A state for a name would be kept from one file to the next."""
    state = b"N}X\x05\x00\x00\x00valueK\x01s\x86"
    for name in (b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\nscalar\n"):
        with pytest.raises(DataError, match="a state for numpy"):
            load_plain(b"\x80\x02" + name + state + b"b.")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04.",
        b"nonsense",
        b"\x80\x04K\x01K\x02a.",
        b"\x80\x04]h\x07a.",
        b"\x80\x04(]K\x01e0.",
        b"\x80\x04a.",
        b"\x80\x04e.",
        b"\x80\x04(K\x01u.",
        b"\x80\x04}(K\x01u.",
        b"\x80\x04\x94.",
        b"\x80\x02(K\x01]a.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"I" + b"9" * 5000 + b"\n.",
        pickle.dumps(list(range(300)))[:-20],
        # An array whose shape, order or dtype is not what numpy writes.
        b"\x80\x02cnumpy\ndtype\n(tR.",
        b"\x80\x02cnumpy\ndtype\nNR.",
        # A name of two numbers.
        b"\x80\x04K\x01K\x02\x93.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n)R.",
    ],
)
def test_a_damaged_pickle_is_an_error(data: bytes) -> None:
    with pytest.raises(DataError):
        load_plain(data)


def array_pickle(shape: tuple[Any, ...], data: bytes, dtype: str = "f8") -> bytes:
    """Pickles an array that lies about itself."""
    reconstruct, _, (_, _, _, fortran, _) = np.zeros(1).__reduce__()
    state = (1, shape, np.dtype(dtype), fortran, data)
    return pickle.dumps(Call(reconstruct, np.ndarray, (0,), b"b", state=state))


def test_an_array_is_as_long_as_its_data() -> None:
    assert load_plain(array_pickle((2,), bytes(16))).tolist() == [0.0, 0.0]
    for shape in [
        (2**60,),
        (2**40, 2**40),
        (1,),
        (-1, -2),
        (-2,),
        (2.0,),
        ("2",),
        (True,),
        (1,) * 99,
    ]:
        with pytest.raises(DataError):
            load_plain(array_pickle(shape, bytes(16)))


@pytest.mark.parametrize(
    "data",
    [
        # Lengths of 2^40 and 2^60 bytes.
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"short.",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"short.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"short.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"short.",
        b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"short.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"short.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        # A memo of 2^32 places: pickle itself would make room for them.
        b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02Np999999999999999999\n.",
        array_pickle((2**60,), b""),
        array_pickle((2**36,), b"", "i1"),
    ],
)
def test_a_length_that_lies_costs_no_memory(data: bytes) -> None:
    tracemalloc.start()
    with contextlib.suppress(DataError):
        load_plain(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**22


def test_what_is_shared_counts_each_time() -> None:
    """A few bytes could otherwise stand for any number of numbers."""
    value: Any = [0.0]
    for _ in range(9):
        value = [value] * 10
    with pytest.raises(DataError, match=f"more than {MAX_CELLS} cells"):
        load_plain(pickle.dumps(value))
    array = np.zeros(2**20)
    assert len(load_plain(pickle.dumps([array] * 4))) == 4
    with pytest.raises(DataError, match=f"more than {MAX_CELLS} cells"):
        load_plain(pickle.dumps([array] * 20))


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def test_what_is_nested_too_deep_is_refused() -> None:
    load_plain(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 10, 5_000):
        with pytest.raises(DataError, match=f"deeper than {MAX_DEPTH}"):
            load_plain(nested(depth))
    tuples = b"\x80\x02)" + b"\x85" * 20_000 + b"."
    with pytest.raises(DataError, match="deeper"):
        load_plain(tuples)


def test_deep_keys_are_refused() -> None:
    """Hashing them would go down to the leaves, out of Python's sight."""
    tuples = b")" + b"\x85" * 20_000
    for data in (b"\x80\x02}" + tuples + b"Ns.", b"\x80\x04\x8f(" + tuples + b"\x90."):
        with pytest.raises(DataError, match="a tuple as a key"):
            load_plain(data)


def test_what_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(DataError, match="deeper"):
        load_plain(pickle.dumps(value))


def test_an_integer_has_at_most_64_bits() -> None:
    assert load_plain(pickle.dumps(2**64 - 1)) == 2**64 - 1
    with pytest.raises(DataError, match="an integer of more than 64 bits"):
        load_plain(pickle.dumps(2**64))


@settings(max_examples=100)
@given(seed=st.integers(0), flips=st.integers(1, 5))
def test_a_damaged_log_is_at_worst_a_data_error(seed: int, flips: int) -> None:
    content = bytearray(pickle.dumps(womd_log()))
    chance = random.Random(seed)
    for _ in range(flips):
        content[chance.randrange(len(content))] = chance.randrange(256)
    with contextlib.suppress(DataError):
        load_plain(bytes(content))
