"""Pickles of plain values are read without being unpickled; everything else is refused."""

import collections
import io
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynin.data.referring import plain_pickle
from dynin.errors import DataError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_come_back(value, protocol, tmp_path):
    data = pickle.dumps(value, protocol=protocol)
    path = tmp_path / "value.pkl"
    path.write_bytes(data)
    needs_a_call = any(opcode.name in ("GLOBAL", "STACK_GLOBAL") for opcode, _, _ in pickletools.genops(data))
    if needs_a_call:  # bytes of the oldest protocols are made by a call
        with pytest.raises(DataError, match="more than plain values"):
            plain_pickle.read(path)
    else:
        assert plain_pickle.read(path) == value


def test_a_value_named_twice_is_one(tmp_path):
    inner = {"size": [3, 4]}
    path = tmp_path / "shared.pkl"
    path.write_bytes(pickle.dumps([inner, inner]))
    first, second = plain_pickle.read(path)
    assert first is second


def test_what_pickles_of_python_2_wrote(tmp_path):
    path = tmp_path / "refs.p"
    path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nVle\\u0301ft\np3\nsS'sent_ids'\np4\n(lp5\nI3\naI01\nasa.")
    assert plain_pickle.read(path) == [{"sent": "le\u0301ft", "sent_ids": [3, True]}]


class _Call:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    "value", [_Call(), collections.OrderedDict(a=1), np.int64(3), np.zeros(2), {1, 2}, bytearray(b"x"), complex(1)]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_everything_else_is_refused_and_nothing_runs(value, protocol, tmp_path, capsys):
    path = tmp_path / "value.pkl"
    path.write_bytes(pickle.dumps({"a": value}, protocol=protocol))
    with pytest.raises(DataError, match="value.pkl: holds more than plain values .* as JSON"):
        plain_pickle.read(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "data", [b"", b"no pickle", pickle.dumps([1, 2])[:-4], b"\x80\x04.", b"]K\x01K\x02s.", b"h\x05."]
)
def test_damaged_files_are_told(data, tmp_path):
    path = tmp_path / "broken.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"broken\.pkl"):
        plain_pickle.read(path)


def test_persistent_ids_are_refused(tmp_path):
    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return "x" if thing == "y" else None

    stream = io.BytesIO()
    Pickler(stream).dump(["y"])
    path = tmp_path / "value.pkl"
    path.write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="opcode BINPERSID"):
        plain_pickle.read(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        plain_pickle.read(tmp_path / "nowhere.pkl")
