"""Finding, verifying, packing, fetching and shrinking Omniglot."""

from __future__ import annotations

import hashlib
import http.server
import io
import logging
import os
import pickle
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from implicit_grad import ArgumentError, CorruptData, DataNotFound, MissingDependency
from implicit_grad.data import (
    OFFICIAL_ARCHIVES,
    Archive,
    Downsampling,
    PackedImages,
    fetch_omniglot,
    load_omniglot,
    loading,
    lookup,
    pack_omniglot,
)
from implicit_grad.data.lookup import CACHE_VARIABLE, DATA_VARIABLE, cache_folder, candidates, locate
from implicit_grad.data.packed import (
    CONTENT_SHA256,
    FILE_NAME,
    FILE_SHA256,
    FOLDER,
    read_packed,
    verify,
    write_packed,
)

U = 2.0**-53
WANTED = {"sha256": "f00d", "hint": "Download it."}


@pytest.fixture(scope="module")
def real_file() -> Path:
    try:
        return locate(FILE_NAME, FOLDER, **WANTED)
    except DataNotFound:
        pytest.skip(f"{FILE_NAME} is in none of the usual places")


@pytest.fixture(scope="module")
def small_zip(real_file) -> Path:
    path = real_file.with_name("images_background_small1.zip")
    if not path.is_file():
        pytest.skip(f"{path.name} does not lie beside {FILE_NAME}")
    return path


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, away from every real data folder."""
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(lookup, "__file__", str(tmp_path / "checkout" / "implicit_grad" / "data" / "lookup.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def drawing(seed: int) -> np.ndarray:
    """Random strokes: True = ink."""
    return np.random.default_rng(seed).random((105, 105)) < 0.08


def small_set(characters: int = 3) -> PackedImages:
    ink = np.array([[np.packbits(drawing(20 * c + d)) for d in range(20)] for c in range(characters)])
    return PackedImages(ink, np.zeros(characters, dtype=np.uint8), np.array(["Greek"]), 2)


# Look-up


def test_places_come_in_the_documented_order(alone, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(alone / "env"))
    order = [
        alone / "env",
        alone / "checkout" / "shared" / "data",
        alone / "shared" / "data",
        alone / "here" / "shared" / "data",
        alone / "cache",
    ]
    places = candidates("x.npz", "omniglot")
    assert places == [p for folder in order for p in (folder / "omniglot" / "x.npz", folder / "x.npz")]
    # The first that exists is taken: fill them from the last to the first.
    for place in reversed(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
        assert locate("x.npz", "omniglot", **WANTED) == place


def test_nothing_found_lists_every_place_the_hash_and_the_remedy(alone):
    with pytest.raises(DataNotFound) as caught:
        load_omniglot()
    message = str(caught.value)
    for place in candidates(FILE_NAME, FOLDER):
        assert str(place) in message
    for part in (FILE_SHA256, DATA_VARIABLE, "fetch_omniglot"):
        assert part in message
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("inside", [".", "omniglot"])
def test_an_explicit_path_is_a_file_or_a_folder(alone, inside):
    target = alone / "mine" / inside / "x.npz"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"")
    for path in (target, alone / "mine", str(alone / "mine")):
        assert locate("x.npz", "omniglot", path=path, **WANTED).samefile(target)


def test_an_explicit_path_is_the_only_place(alone):
    elsewhere = alone / "cache" / "x.npz"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"")
    with pytest.raises(DataNotFound) as caught:
        locate("x.npz", "omniglot", path=alone / "typo.npz", **WANTED)
    assert str(alone / "typo.npz") in str(caught.value)
    assert str(elsewhere) not in str(caught.value)


def test_cache_folder_without_pooch(alone, monkeypatch):
    assert cache_folder() == alone / "cache"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().name == "implicit_grad"
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert cache_folder() is None
    assert all("cache" not in place.parts for place in candidates("x.npz", "omniglot"))
    with pytest.raises(MissingDependency, match=r"implicit-grad\[data\]"):
        fetch_omniglot()
    with pytest.raises(MissingDependency, match=r"implicit-grad\[data\]"):
        fetch_omniglot(alone / "downloads")


# The packed file


def test_the_real_file_is_the_one_that_is_documented(real_file):
    assert hashlib.sha256(real_file.read_bytes()).hexdigest() == FILE_SHA256
    images = load_omniglot(real_file)
    assert images.sha256() == CONTENT_SHA256
    assert images.ink.shape == (1623, 20, 1379)
    assert images.n_background == 964
    assert len(images.alphabet_names) == 50
    # Background and evaluation share no alphabet, 30 and 20 of them.
    halves = [set(images.alphabet[:964]), set(images.alphabet[964:])]
    assert [len(half) for half in halves] == [30, 20]
    assert not halves[0] & halves[1]
    assert load_omniglot(real_file.parent) is images
    with pytest.raises(ValueError, match="read-only"):
        images.ink[0, 0, 0] = 1


@given(character=st.integers(0, 2), drawer=st.integers(0, 19))
def test_images_unpack_to_what_was_packed(character, drawer):
    images = small_set()
    np.testing.assert_array_equal(images.images(character, drawer), drawing(20 * character + drawer))


def test_images_broadcast_their_indices():
    images = small_set()
    got = images.images(np.array([[2], [0]]), np.array([[3, 4, 5], [6, 7, 8]]))
    assert got.shape == (2, 3, 105, 105)
    assert got.dtype == bool
    np.testing.assert_array_equal(got[1, 2], drawing(8))
    np.testing.assert_array_equal(got[0, 1], drawing(44))


def test_written_files_read_back(tmp_path):
    images = small_set()
    again = read_packed(write_packed(images, tmp_path / "new" / "x.npz"))
    assert again.sha256() == images.sha256()
    np.testing.assert_array_equal(again.alphabet_names, images.alphabet_names)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.npz"]


@pytest.mark.parametrize("change", ["pixel", "alphabet", "split", "order"])
def test_the_content_hash_sees_every_change(change):
    images = small_set()
    ink, alphabet, split = images.ink.copy(), images.alphabet.copy(), images.n_background
    if change == "pixel":
        ink[1, 7, 100] ^= 1
    elif change == "alphabet":
        alphabet[1] = 3
    elif change == "split":
        split = 1
    else:
        ink = ink[::-1]
    other = PackedImages(ink, alphabet, images.alphabet_names, split)
    assert other.sha256() != images.sha256()
    with pytest.raises(CorruptData, match=images.sha256()):
        verify(Path("x.npz"), other, images.sha256())
    verify(Path("x.npz"), images, images.sha256())


def test_wrong_content_is_refused(tmp_path):
    path = write_packed(small_set(), tmp_path / FILE_NAME)
    with pytest.raises(CorruptData, match=CONTENT_SHA256):
        load_omniglot(path)


def test_one_flipped_pixel_is_refused_and_other_compression_is_not(tmp_path, real_file):
    images = load_omniglot(real_file)
    fields = {name: getattr(images, name) for name in ("ink", "alphabet", "alphabet_names", "n_background")}
    path = tmp_path / FILE_NAME
    np.savez(path, **fields)
    assert hashlib.sha256(path.read_bytes()).hexdigest() != FILE_SHA256
    assert load_omniglot(path).sha256() == CONTENT_SHA256
    ink = images.ink.copy()
    ink[1200, 3, 700] ^= 4
    np.savez(path, **{**fields, "ink": ink})  # under the running process: the cached copy does not hide it
    with pytest.raises(CorruptData, match=str(path)):
        load_omniglot(path)


PACKED_BYTES = io.BytesIO()
np.savez_compressed(
    PACKED_BYTES,
    ink=np.random.default_rng(9).integers(0, 2, (1, 20, 1379), dtype=np.uint8),
    alphabet=np.zeros(1, dtype=np.uint8),
    alphabet_names=np.array(["Greek"]),
    n_background=np.int16(1),
)
PACKED = PACKED_BYTES.getvalue()
with np.load(io.BytesIO(PACKED)) as fields:
    PACKED_CONTENT = PackedImages(fields["ink"], fields["alphabet"], fields["alphabet_names"], 1).sha256()


@given(
    damage=st.lists(st.tuples(st.integers(0, len(PACKED) - 1), st.integers(1, 255)), max_size=3),
    keep=st.integers(0, len(PACKED)),
)
@example(damage=[], keep=0)
@example(damage=[], keep=len(PACKED))
@example(damage=[(len(PACKED) // 2, 1)], keep=len(PACKED))
def test_damage_is_corrupt_data_or_harmless(tmp_path_factory, damage, keep):
    content = bytearray(PACKED)
    for place, change in damage:
        content[place] ^= change
    path = tmp_path_factory.mktemp("damage") / "x.npz"
    path.write_bytes(content[:keep])
    try:
        found = read_packed(path).sha256()
    except CorruptData:
        assert damage or keep < len(PACKED)
    else:  # a time stamp or another field that nobody reads
        assert found == PACKED_CONTENT


@pytest.mark.parametrize("place", [-2, len(PACKED) // 2, 0])
def test_truncation_is_noticed(tmp_path, place):
    path = tmp_path / "x.npz"
    path.write_bytes(PACKED[:place])
    with pytest.raises(CorruptData):
        read_packed(path)


@given(place=st.integers(100, 4600), change=st.integers(1, 255))
@example(place=124, change=192)  # np.load takes this one
def test_a_flipped_byte_of_the_pixels_is_always_noticed(tmp_path_factory, place, change):
    content = bytearray(PACKED)
    content[place] ^= change
    path = tmp_path_factory.mktemp("flip") / "x.npz"
    path.write_bytes(content)
    with pytest.raises(CorruptData, match=r"x\.npz"):
        read_packed(path)


def test_an_archive_that_would_unpack_to_much_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ink.npy", bytes(1 << 27))
    with pytest.raises(CorruptData, match="ink would take"):
        read_packed(path)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.touch, (self.victim,))


@pytest.mark.parametrize("form", ["npz", "npy", "pickle"])
def test_nothing_is_unpickled(tmp_path, form):
    victim, path = tmp_path / "victim", tmp_path / FILE_NAME
    trap = np.array([Trap(victim)], dtype=object)
    with path.open("wb") as stream:
        if form == "npz":
            np.savez(stream, ink=trap, alphabet=trap, alphabet_names=trap, n_background=trap)
        elif form == "npy":
            np.save(stream, trap)
        else:
            pickle.dump(Trap(victim), stream)
    with pytest.raises(CorruptData):
        load_omniglot(path)
    assert not victim.exists()
    with path.open("rb") as stream:  # the trap works
        _ = np.load(stream, allow_pickle=True)["ink"] if form == "npz" else np.load(stream, allow_pickle=True)
    assert victim.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ink", np.zeros((3, 20, 1378), dtype=np.uint8)),
        ("ink", np.zeros((3, 20, 1379))),
        ("ink", np.zeros((20, 1379), dtype=np.uint8)),
        ("alphabet", np.zeros(2, dtype=np.uint8)),
        ("alphabet", np.zeros(3)),
        ("alphabet", np.ones(3, dtype=np.uint8)),
        ("alphabet_names", np.array([1])),
        ("n_background", 4),
        ("n_background", -1),
        ("n_background", np.arange(2)),
        ("n_background", None),
    ],
)
def test_another_format_is_refused(tmp_path, field, value):
    images = small_set()
    fields = {name: getattr(images, name) for name in ("ink", "alphabet", "alphabet_names", "n_background")}
    fields[field] = value
    if value is None:
        del fields[field]
    path = tmp_path / "x.npz"
    np.savez(path, **fields)
    with pytest.raises(CorruptData, match=r"x\.npz"):
        read_packed(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = write_packed(small_set(), tmp_path / "x.npz")
    before = target.read_bytes()

    def full_disk(stream, **fields):
        stream.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_packed(small_set(2), target)
    assert target.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


def test_the_new_file_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    target = write_packed(small_set(), tmp_path / "x.npz")
    old, synced = target.read_bytes(), []

    def fsync(descriptor: int) -> None:
        assert target.read_bytes() == old
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    write_packed(small_set(2), target)
    assert synced == [target.stat().st_size]


# Packing


def png(ink: np.ndarray, mode: str = "1") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(~ink).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def write_zip(path: Path, characters: dict[str, list[int]], *, skip: str = "", **replace: bytes) -> Path:
    """Write an archive like the official ones: {"set/Alphabet/character01/0007": seeds of its drawings}."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(next(iter(characters)).split("/")[0] + "/", b"")
        archive.writestr("__MACOSX/a/b/character01/._0007_01.png", b"no image")
        for stem, seeds in characters.items():
            for i, seed in enumerate(seeds):
                name = f"{stem}_{i + 1:02d}.png"
                if name != skip:
                    archive.writestr(name, replace.get("broken", b"") if i == 3 and replace else png(drawing(seed)))
    return path


BACKGROUND = {
    "images_background/Zulu/character01/0001": list(range(20)),
    "images_background/Greek/character02/0003": list(range(20, 40)),
    "images_background/Greek/character01/0002": list(range(40, 60)),
}
EVALUATION = {"images_evaluation/Atlas/character01/0004": list(range(60, 80))}


@pytest.mark.parametrize("swap", [False, True])
def test_packing_orders_by_set_and_number(tmp_path, swap):
    archives = [write_zip(tmp_path / "b.zip", BACKGROUND), write_zip(tmp_path / "e.zip", EVALUATION)]
    images = read_packed(pack_omniglot(archives[:: -1 if swap else 1], tmp_path / "out" / "x.npz"))
    assert images.n_background == 3
    assert images.alphabet_names.tolist() == ["Zulu", "Greek", "Atlas"]
    assert images.alphabet.tolist() == [0, 1, 1, 2]
    for character, first in enumerate((0, 40, 20, 60)):
        for drawer in range(20):
            np.testing.assert_array_equal(images.images(character, drawer), drawing(first + drawer))


def test_packing_the_official_small_archive_gives_the_packed_files_bits(tmp_path, real_file, small_zip):
    packed = read_packed(pack_omniglot([small_zip], tmp_path / "x.npz"))
    whole = load_omniglot(real_file)
    numbers = [whole.alphabet_names.tolist().index(name) for name in packed.alphabet_names]
    assert len(numbers) == 5
    same = np.flatnonzero(np.isin(whole.alphabet, numbers))
    assert packed.ink.shape == (136, 20, 1379)
    assert packed.n_background == 136
    np.testing.assert_array_equal(packed.ink, whole.ink[same])
    np.testing.assert_array_equal(packed.alphabet_names[packed.alphabet], whole.alphabet_names[whole.alphabet[same]])


def test_packing_refuses_a_missing_drawing(tmp_path):
    archive = write_zip(tmp_path / "b.zip", BACKGROUND, skip="images_background/Greek/character01/0002_20.png")
    with pytest.raises(CorruptData, match="0002"):
        pack_omniglot([archive], tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    "content",
    [png(drawing(5)[:100]), png(drawing(5), "L"), b"no image", png(drawing(5))[:60], b""],
    ids=["size", "mode", "text", "truncated", "empty"],
)
def test_packing_refuses_foreign_images(tmp_path, content):
    archive = write_zip(tmp_path / "b.zip", BACKGROUND, broken=content)
    with pytest.raises(CorruptData, match=r"0001_04\.png"):
        pack_omniglot([archive], tmp_path / "x.npz")


def test_packing_refuses_the_same_archive_twice_and_none_at_all(tmp_path):
    archive = write_zip(tmp_path / "b.zip", BACKGROUND)
    with pytest.raises(CorruptData, match="already there"):
        pack_omniglot([archive, archive], tmp_path / "x.npz")
    with pytest.raises(ArgumentError, match="archives"):
        pack_omniglot([], tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError):
        pack_omniglot([tmp_path / "absent.zip"], tmp_path / "x.npz")


def test_packing_refuses_damaged_and_foreign_archives(tmp_path):
    whole = write_zip(tmp_path / "b.zip", BACKGROUND).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"text", whole[:200] + b"\0" * 40 + whole[240:]):
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(CorruptData, match=r"bad\.zip"):
            pack_omniglot([tmp_path / "bad.zip"], tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with pytest.raises(CorruptData, match="no image"):
        pack_omniglot([tmp_path / "other.zip"], tmp_path / "x.npz")


# Fetching


class Server:
    """An HTTP server of one folder on this machine, which counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        asked = self.asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, directory=str(folder), **kwargs)

            def do_GET(self):
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "www").mkdir()
    write_zip(tmp_path / "www" / "images_background.zip", BACKGROUND)
    write_zip(tmp_path / "www" / "images_evaluation.zip", EVALUATION)
    running = Server(tmp_path / "www")
    yield running
    running.close()


def archives_of(server: Server, folder: Path) -> tuple[Archive, ...]:
    return tuple(
        Archive(f"{server.url}/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(folder.iterdir())
    )


def test_fetching_downloads_once_verifies_and_packs(alone, server):
    www = alone / "www"
    archives = archives_of(server, www)
    content = read_packed(pack_omniglot(sorted(www.iterdir()), alone / "wanted.npz")).sha256()
    fetched = fetch_omniglot(archives=archives, content_sha256=content)
    assert fetched == alone / "cache" / FILE_NAME
    assert read_packed(fetched).sha256() == content
    assert sorted(server.asked) == ["/images_background.zip", "/images_evaluation.zip"]
    assert locate(FILE_NAME, FOLDER, **WANTED) == fetched

    stamp = fetched.stat().st_mtime_ns
    assert fetch_omniglot(archives=archives, content_sha256=content) == fetched
    assert fetched.stat().st_mtime_ns == stamp
    fetched.write_bytes(b"damaged")  # packed anew from the archives that are there
    assert read_packed(fetch_omniglot(archives=archives, content_sha256=content)).sha256() == content
    assert len(server.asked) == 2


def test_fetching_is_quiet(alone, server):
    import pooch

    notes: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: notes.append(record.getMessage())
    logger = pooch.get_logger()  # pooch's own, outside the tree of loggers
    logger.addHandler(listener)
    try:
        logger.info("heard before")
        with pytest.raises(CorruptData):
            fetch_omniglot(archives=archives_of(server, alone / "www"))
        logger.info("heard afterwards")
        assert notes == ["heard before", "heard afterwards"]
    finally:
        logger.removeHandler(listener)


def test_fetching_into_a_folder_of_ones_own(alone, server):
    archives = archives_of(server, alone / "www")
    content = read_packed(pack_omniglot(sorted((alone / "www").iterdir()), alone / "wanted.npz")).sha256()
    fetched = fetch_omniglot(alone / "mine", archives=archives, content_sha256=content)
    assert fetched == alone / "mine" / FILE_NAME
    assert not (alone / "cache").exists()


def test_fetching_refuses_a_wrong_archive(alone, server):
    first, second = archives_of(server, alone / "www")
    with pytest.raises(CorruptData, match=f"wanted sha256 {second.sha256}"):
        fetch_omniglot(archives=(Archive(first.url, second.sha256),))
    assert not (alone / "cache" / FILE_NAME).exists()
    assert not (alone / "cache" / first.name).exists()


def test_fetching_refuses_archives_of_other_content(alone, server):
    with pytest.raises(CorruptData, match=CONTENT_SHA256):
        fetch_omniglot(archives=archives_of(server, alone / "www"))


def test_fetching_from_nowhere(alone, server):
    with pytest.raises(DataNotFound, match=r"absent\.zip could not be downloaded"):
        fetch_omniglot(archives=(Archive(f"{server.url}/absent.zip", "0" * 64),))
    closed = server.url
    server.close()
    with pytest.raises(DataNotFound, match="could not be downloaded"):
        fetch_omniglot(archives=(Archive(f"{closed}/images_background.zip", "0" * 64),))


def test_download_happens_only_on_request(alone, monkeypatch, real_file):
    calls = []

    def fetch() -> Path:
        calls.append(1)
        return Path(shutil.copy(real_file, alone / FILE_NAME))

    monkeypatch.setattr(loading, "fetch_omniglot", fetch)
    with pytest.raises(DataNotFound):
        load_omniglot()
    with pytest.raises(DataNotFound):
        load_omniglot(alone / "typo.npz", download=True)
    assert not calls
    assert load_omniglot(download=True).n_background == 964
    assert calls == [1]


def test_official_archives_are_named_with_hashes():
    assert [archive.name for archive in OFFICIAL_ARCHIVES] == ["images_background.zip", "images_evaluation.zip"]
    for archive in OFFICIAL_ARCHIVES:
        assert archive.url.startswith("https://")
        assert len(bytes.fromhex(archive.sha256)) == 32


# Downsampling


@given(seed=st.integers(2, 2**32), density=st.floats(0, 1), resample=st.sampled_from(Image.Resampling))
def test_nearest_is_what_pillow_does_to_one_bit_images(seed, density, resample):
    ink = np.random.default_rng(seed).random((105, 105)) < density
    paper = Image.fromarray(~ink)
    assert paper.mode == "1"
    small = np.asarray(paper.resize((28, 28), resample))
    np.testing.assert_array_equal(Downsampling.NEAREST(ink), 1.0 - small)


def test_nearest_on_real_drawings(real_file):
    images = load_omniglot(real_file)
    characters = np.arange(0, 1623, 37)[:, None]
    ink = images.images(characters, np.arange(20))
    expected = [
        [1.0 - np.asarray(Image.fromarray(~each).resize((28, 28), Image.Resampling.LANCZOS)) for each in row]
        for row in ink
    ]
    np.testing.assert_array_equal(Downsampling.NEAREST(ink), expected)


def lanczos_matrix(size: int, wide: int) -> np.ndarray:
    """Weights (size, wide) of the three-lobed Lanczos filter, stretched by wide/size."""
    stretch = wide / size
    x = (np.arange(wide) + 0.5 - (np.arange(size)[:, None] + 0.5) * stretch) / stretch
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


@given(seed=st.integers(2, 2**32), density=st.floats(0, 1))
def test_lanczos_is_the_filter_on_grey_levels(seed, density):
    ink = np.random.default_rng(seed).random((105, 105)) < density
    M = lanczos_matrix(28, 105)
    # Pillow filters rows, then columns, and rounds to 0 … 255 after each pass.
    grey = np.clip(np.rint(np.where(ink, 0.0, 255.0) @ M.T), 0, 255)
    grey = np.clip(np.rint(M @ grey), 0, 255)
    levels = Downsampling.LANCZOS(ink) * 255
    assert np.all(np.abs(levels - np.rint(levels)) <= 255 * 2 * U)
    # Its weights are fixed-point numbers: where a sum lies half way between two levels, one may round otherwise.
    off = np.abs(levels - grey)
    assert off.max() <= 1.01
    assert np.mean(off > 0.5) <= 0.01


def test_polarity_of_empty_and_full_paper():
    for ink in (np.zeros((2, 105, 105), dtype=bool), np.ones((2, 105, 105), dtype=bool)):
        np.testing.assert_array_equal(Downsampling.NEAREST(ink), np.full((2, 28, 28), float(ink[0, 0, 0])))
        np.testing.assert_array_equal(Downsampling.LANCZOS(ink), np.full((2, 28, 28), 1.0 - ink[0, 0, 0]))


def test_ink_fraction_of_real_drawings(real_file):
    images = load_omniglot(real_file)
    fraction = np.mean([Downsampling.NEAREST(images.images(c, np.arange(20))).mean() for c in range(1623)])
    assert round(100 * fraction, 2) == 8.05  # an independent count over MAML's preprocessed images


@given(seed=st.integers(2, 2**32), turns=st.integers(0, 3))
def test_quarter_turns_and_nearest_commute(seed, turns):
    # So that it does not matter whether a rotated class is made before or after shrinking. With Lanczos it does.
    ink = np.random.default_rng(seed).random((105, 105)) < 0.1
    np.testing.assert_array_equal(
        Downsampling.NEAREST(np.rot90(ink, turns)), np.rot90(Downsampling.NEAREST(ink), turns)
    )
