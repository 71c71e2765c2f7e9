"""Results on disk: whole or not at all."""

import numpy as np
import pytest
import xarray as xr

from implicit_grad import ArgumentError, CorruptData, storage


def _table():
    values = np.arange(6.0).reshape(2, 3)
    return xr.Dataset({"a": (("x", "y"), values)}, coords={"x": ["p", "q"]}, attrs={"seed": 7, "text": "λ"})


def test_round_trip(tmp_path):
    storage.save(_table(), tmp_path / "a.nc")
    assert storage.load(tmp_path / "a.nc").identical(_table())
    assert [p.name for p in tmp_path.iterdir()] == ["a.nc"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.nc"
    path.write_text("old")

    def fail_half_way():
        with storage.atomic_target(path) as target:
            target.write_text("new, but")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_target_is_in_the_same_folder(tmp_path):
    """os.replace is atomic within one file system only."""
    with storage.atomic_target(tmp_path / "a.png") as target:
        assert target.parent == tmp_path
        assert target.suffix == ".png"
        target.write_bytes(b"1")
    assert (tmp_path / "a.png").read_bytes() == b"1"


@pytest.mark.parametrize("damage", [b"", b"not a netcdf file", None])
def test_damaged_files_are_named(tmp_path, damage):
    path = tmp_path / "a.nc"
    storage.save(_table(), path)
    path.write_bytes(path.read_bytes()[:700] if damage is None else damage)
    with pytest.raises(CorruptData, match=r"a\.nc"):
        storage.load(path)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.load(tmp_path / "none.nc")


def test_unwritable_folders_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="out: cannot write"):
        storage.check_writable(tmp_path / "file" / "below")
    with pytest.raises(ArgumentError, match="out: cannot write"):
        storage.check_writable(tmp_path / "file")


def test_folders_are_created(tmp_path):
    assert storage.check_writable(tmp_path / "a b" / "c").is_dir()
    assert not list((tmp_path / "a b" / "c").iterdir())


def test_versions():
    assert {"python", "numpy", "scipy", "autograd"} <= set(storage.versions())
