"""The folder of a sweep: whole files or none, damage set aside, locks that end with their holder."""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from implicit_grad import ArgumentError, CorruptData
from implicit_grad.engine import Store, container, lock
from implicit_grad.errors import StorageError

KEY = "0b" * 32
DATA = container.pack({"x": np.arange(3)}, KEY)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "sweep").open()


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_cell_is_where_its_key_says_and_nothing_else_is_left(store):
    store.write(KEY, DATA)
    assert names(store.folder) == [f"cells/0b/{KEY}.npz"]
    assert store.holds(KEY)
    np.testing.assert_array_equal(store.load(KEY)["x"], np.arange(3))


def test_a_missing_cell(store):
    assert not store.holds(KEY)
    for ask in (store.fault, store.load):
        with pytest.raises(FileNotFoundError):
            ask(KEY)


def test_a_damaged_cell_is_not_held_and_says_where_it_is(store):
    store.write(KEY, DATA[:-1] + b"x")
    assert not store.holds(KEY)
    with pytest.raises(CorruptData, match=f"{KEY}.npz.*run the sweep again"):
        store.load(KEY)


def test_quarantine_keeps_every_damaged_file_and_the_reason(store):
    for i in range(3):
        store.write(KEY, f"damage {i}".encode())
        aside = store.quarantine(KEY, f"reason {i}")
        assert aside.read_bytes() == f"damage {i}".encode()
        assert json.loads(aside.with_suffix(".json").read_text()) == {"cell": KEY, "reason": f"reason {i}"}
    assert len(names(store.folder / "quarantine")) == 6
    assert not store.path(KEY).exists()


def test_a_folder_where_none_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot write"):
        Store(tmp_path / "file").open()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_folder_without_permission_is_refused():
    """Root may write anywhere: then as another user, below a folder that everybody may enter."""
    code = (
        "import os, sys; from pathlib import Path; from implicit_grad.engine import Store\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: Store(Path(sys.argv[1])).open()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        closed = Path(place) / "closed"
        closed.mkdir(mode=0o555)
        run = subprocess.run([sys.executable, "-c", code, str(closed)], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("ArgumentError")
    assert "Permission denied" in run.stdout


def test_no_room_is_noticed_at_the_start(tmp_path, monkeypatch):
    """The real thing, a small disk, is in test_engine_faults."""

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "full")

    monkeypatch.setattr("implicit_grad.engine.store.tempfile.TemporaryFile", lambda dir: Full())
    with pytest.raises(StorageError, match=r"full; nothing was computed"):
        Store(tmp_path).open()


def test_a_write_that_fails_leaves_what_was_there(store, monkeypatch):
    store.write(KEY, DATA)

    def half(path, data):
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(StorageError, match=r"No space left.*finished cells are kept"):
        store.write(KEY, DATA)
    assert names(store.folder) == [f"cells/0b/{KEY}.npz"]
    assert store.holds(KEY)


def test_a_claim_is_for_one_at_a_time(store):
    with store.claim(KEY) as first:
        with store.claim(KEY) as second:
            assert (first, second) == (True, False)
        with store.claim("1" * 64) as other:
            assert other
        assert names(store.folder) == [f"cells/0b/{KEY}.lock"]  # the refused claim did not remove it
    with store.claim(KEY) as again:
        assert again
    assert names(store.folder) == []


def test_a_claim_removes_what_a_killed_writer_left(store):
    folder = store.path(KEY).parent
    folder.mkdir(parents=True)
    (folder / f".{KEY}-abc.npz").write_bytes(b"half")
    (folder / f"{KEY}.lock").write_bytes(b"")
    (folder / f".{'1' * 64}-abc.npz").write_bytes(b"of another cell")
    with store.claim(KEY) as granted:
        assert granted
    assert names(store.folder) == [f"cells/0b/.{'1' * 64}-abc.npz"]


def test_a_claim_ends_with_its_process(store):
    """Also when it is killed: no time limit, no stale lock."""
    code = (
        "import sys, time; from pathlib import Path; from implicit_grad.engine import Store\n"
        "with Store(Path(sys.argv[1])).claim(sys.argv[2]) as granted: print(granted, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.folder), KEY], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "True\n"
        with store.claim(KEY) as while_it_lives:
            assert not while_it_lives
        process.kill()
    with store.claim(KEY) as granted:
        assert granted


def test_an_error_inside_a_claim_ends_it(store):
    with pytest.raises(KeyboardInterrupt), store.claim(KEY):
        raise KeyboardInterrupt
    assert names(store.folder) == []


def test_where_nothing_can_be_locked_everyone_is_granted_and_nothing_is_removed(store, monkeypatch):
    left = store.path(KEY).parent / f".{KEY}-abc.npz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"somebody may be writing this")
    for attribute, value in (("_FCNTL", None), ("_try", lambda handle, path: None)):
        with monkeypatch.context() as patch:
            patch.setattr(lock, attribute, value)
            with store.claim(KEY) as one, store.claim(KEY) as two:
                assert one
                assert two
        assert left.exists()


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_lock_whose_file_was_removed_meanwhile_is_not_granted(tmp_path, monkeypatch, made_anew):
    """Between `open` and `flock` the holder before may remove the file: the lock would be on no name."""
    path = tmp_path / "x.lock"
    opened = lock._open

    def and_removed(where):
        handle = opened(where)
        where.unlink()
        if made_anew:
            where.touch()
        return handle

    with monkeypatch.context() as patch:
        patch.setattr(lock, "_open", and_removed)
        with lock.locked(path) as hold:
            assert not hold.granted
    with lock.locked(path) as hold:
        assert hold.certain


def test_threads_exclude_each_other_too(store):
    inside, most, guard = 0, 0, threading.Lock()

    def claim_and_count():
        nonlocal inside, most
        for _ in range(30):
            with store.claim(KEY) as granted:
                if granted:
                    with guard:
                        inside += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1

    crowd = [threading.Thread(target=claim_and_count) for _ in range(4)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert most == 1
