"""The file of a cell: bits come back, damage is seen, and no pickle is ever loaded."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

from implicit_grad import ArgumentTypeError, CorruptData
from implicit_grad.engine import container

KEY, OTHER = "3f" * 32, "a0" * 32
xr = pytest.importorskip("xarray", reason="the extra `sweep` is not installed")


def arrays():
    return {
        "float": np.array([[0.1, -0.0], [np.inf, np.nan]]),
        "single": np.array([1 / 3], dtype=np.float32),
        "code": np.array([1, -2], dtype=np.int8),
        "flag": np.array(True),
        "text": np.array(["φ*", "θ"]),
        "complex": np.array([1j]),
        "empty": np.zeros((0, 3)),
        "swapped": np.array([1.5], dtype=">f8"),
        "a/../name with.dots": np.array(1),
    }


def test_arrays_come_back_bit_by_bit():
    back = container.unpack(container.pack(arrays(), KEY), KEY)
    assert list(back) == list(arrays())
    for name, array in arrays().items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_a_data_set_comes_back_with_its_coordinates_and_attributes():
    table = xr.Dataset(
        {
            "error": (("estimator", "lam"), [[1e-3, np.nan]], {"units": "1"}),
            "code": ("lam", np.array([1, 2], np.int8)),
        },
        {"estimator": ["CG-5"], "lam": [0.1, np.inf], "label": ("lam", ["a", "b"])},
        {"ran": "κ", "seed": 7, "missing": np.int64(3), "floor": float("nan"), "range": [1, 2.5], "nothing": None},
    )
    back = container.unpack(container.pack(table, KEY), KEY)
    xr.testing.assert_identical(back.drop_attrs(), table.drop_attrs())
    assert list(back.attrs) == list(table.attrs)
    assert {k: v for k, v in back.attrs.items() if k != "floor"} == {
        k: v for k, v in table.attrs.items() if k != "floor"
    }
    assert np.isnan(back.attrs["floor"])
    assert back.error.attrs == {"units": "1"}
    assert {name: each.dtype for name, each in back.variables.items()} == {
        name: each.dtype for name, each in table.variables.items()
    }


def test_equal_cells_are_equal_files_that_numpy_and_unzip_read(tmp_path):
    data = container.pack(arrays(), KEY, json.dumps({"function": "f"}))
    assert data == container.pack(arrays(), KEY, json.dumps({"function": "f"}))
    path = tmp_path / "cell.npz"
    path.write_bytes(data)
    with np.load(path) as file:
        assert file["0"].tobytes() == arrays()["float"].tobytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("header.json"))["identity"] == {"function": "f"}


@pytest.fixture(scope="module")
def small():
    return container.pack({"x": np.array([0.1, 0.2])}, KEY)


def test_every_flipped_bit_is_seen(small):
    unseen = [
        (at, bit)
        for at in range(len(small))
        for bit in range(8)
        if container.check(small[:at] + bytes([small[at] ^ (1 << bit)]) + small[at + 1 :], KEY) is None
    ]
    assert not unseen


def test_every_cut_and_every_addition_is_seen(small):
    assert all(container.check(small[:length], KEY) for length in range(len(small)))
    assert container.check(small + b"\0", KEY)
    assert container.check(b"\0" + small, KEY)
    assert container.check(bytes(len(small)), KEY)
    assert container.check(small, KEY) is None


def test_the_file_of_another_cell_is_seen(small):
    assert "another cell" in container.check(small, OTHER)
    with pytest.raises(CorruptData, match=OTHER):
        container.unpack(small, OTHER)


def test_damage_is_an_error_on_reading(small):
    with pytest.raises(CorruptData, match="checksum"):
        container.unpack(small[:40] + b"x" + small[41:], KEY)


class Bomb:
    fuse = 0

    def __reduce__(self):
        return Bomb.light, ()

    @staticmethod
    def light():
        Bomb.fuse += 1


def forged(members, layout):
    """A file with a valid checksum whose content `pack` would never write."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(container.HEADER, json.dumps({"identity": {}, "layout": layout}))
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = b"0" * container.TRAILER
    body = buffer.getvalue()[: -container.TRAILER]
    return body + container._trailer(body, KEY)


def test_no_pickle_is_loaded_even_behind_a_valid_checksum():
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Bomb()]), allow_pickle=True)
    for member in (stream.getvalue(), pickle.dumps(Bomb())):
        data = forged({"0.npy": member}, {"arrays": ["x"]})
        assert container.check(data, KEY) is None
        with pytest.raises(CorruptData, match="written by something else"):
            container.unpack(data, KEY)
    assert Bomb.fuse == 0
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.fuse == 1  # it would have been noticed


@pytest.mark.parametrize("layout", [{}, {"arrays": ["x", "y"]}, [], {"arrays": 3}, {"arrays": ["x"], "dims": {}}])
def test_a_forged_header_is_an_error_of_ours(layout):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(3))
    with pytest.raises(CorruptData):
        container.unpack(forged({"0.npy": stream.getvalue()}, layout), KEY)


@pytest.mark.parametrize(
    "content",
    [
        {"x": np.array([None])},
        {"x": [1, "a", None]},
        {1: np.zeros(2)},
        [np.zeros(2)],
        3.0,
        None,
        xr.Dataset(attrs={"f": print}),
        xr.Dataset({"x": ("a", np.array([{}], dtype=object))}),
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_refused(content):
    with pytest.raises(ArgumentTypeError):
        container.pack(content, KEY)
