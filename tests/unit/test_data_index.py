"""The listing of an image folder, kept: never another result than listing it anew, whatever changed in between."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.config import TrainConfig
from app.data import index, listing
from app.data.folder import FolderSamples, open_folder
from app.data.index import Places
from app.data.listing import Listing
from app.data.open import open_dataset
from app.data.samples import Dataset
from app.resilience.exit_codes import ExitCode, TrainingError

TICK = 0.02
"""Seconds after which every file system here gives another time than before."""


def build(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return build(tmp_path / "data", *(f"{part}/{c}/{i}.jpg" for part in ("train", "val") for c in "abc" for i in "12"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's times prove something from the next tick of the clock on, and not only a minute later."""
    monkeypatch.setattr(listing, "SETTLED_SECONDS", 0.0)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The class folders that were listed."""
    names: list[str] = []
    real = listing.list_class

    def noting(folder: str) -> listing.ClassListing:
        names.append(os.path.join(*Path(folder).parts[-2:]))
        return real(folder)

    monkeypatch.setattr(listing, "list_class", noting)
    return names


def seen(data: Dataset) -> list[tuple[str, int]]:
    parts = [part for part in (data.train, data.val) if isinstance(part, FolderSamples)]
    assert len(parts) == 2
    return [(part.path(i), int(part.labels[i])) for part in parts for i in range(len(part))]


def opened(path: Path, kept: Path) -> list[tuple[str, int]]:
    time.sleep(TICK)
    return seen(open_folder(str(path), Places(str(kept))))


def test_the_next_start_lists_only_what_has_changed(
    images: Path, tmp_path: Path, settled: None, listed: list[str]
) -> None:
    first = opened(images, tmp_path / "kept")
    assert len(listed) == 6
    listed.clear()
    assert opened(images, tmp_path / "kept") == first
    assert listed == []
    build(images, "train/b/3.jpg")
    assert len(opened(images, tmp_path / "kept")) == 13
    assert listed == ["train/b"]
    listed.clear()
    assert opened(images, tmp_path / "kept") == seen(open_folder(str(images)))
    assert len(listed) == 6  # by the folder without an index


def test_a_folder_that_has_just_changed_is_listed_again(images: Path, tmp_path: Path, listed: list[str]) -> None:
    for number in range(3, 30):  # several of these fall into one tick of the clock
        count = len(seen(open_folder(str(images), Places(str(tmp_path / "kept")))))
        build(images, f"train/a/{number}.jpg")
        assert count == 12 + number - 3
    assert not (tmp_path / "kept").exists()  # there was nothing worth keeping


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "rename", "folder", "swap", "back-dated", "link", "relink", "class"]),
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=4,
)


def change(root: Path, what: str, number: int, at: str) -> None:
    chance = random.Random(number)
    folder = chance.choice(sorted(path for part in ("train", "val") for path in (root / part).iterdir()))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    new = f"new{at}.jpg"
    if what == "add":
        (folder / new).touch()
    elif what == "remove" and len(files) > 1:
        chance.choice(files).unlink()
    elif what == "rename":
        chance.choice(files).rename(folder / new)
    elif what == "folder":
        build(folder, f"sub{at}/{new}")
    elif what == "swap":  # another folder takes its place, of the same name and times
        times = folder.stat()
        folder.rename(root / "aside")
        build(folder, new)
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
        for path in sorted((root / "aside").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (root / "aside").rmdir()
    elif what == "back-dated":  # as rsync and tar do
        times = folder.stat()
        (folder / new).touch()
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif what == "link":
        (folder / f"link{at}").symlink_to(root / "elsewhere" / str(number % 3))
    elif what == "relink":  # the target of links changes, or comes to be
        build(root / "elsewhere" / str(number % 3), new)
    elif what == "class":
        build(root, f"train/class{at}/1.jpg", f"val/class{at}/1.jpg")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGES, min_size=1, max_size=3))
def test_whatever_changes_a_kept_listing_is_never_another_than_a_new_one(
    settled: None, tmp_path_factory: pytest.TempPathFactory, starts: list[list[tuple[str, int]]]
) -> None:
    root = tmp_path_factory.mktemp("data")
    build(root, *(f"{part}/{c}/{i}.jpg" for part in ("train", "val") for c in "ab" for i in "12"))
    for start, changes in enumerate(starts):
        opened(root, root / "kept")
        for i, (what, number) in enumerate(changes):
            change(root, what, number, f"{start}-{i}")
        assert opened(root, root / "kept") == seen(open_folder(str(root)))


def test_names_that_are_no_text_are_kept_as_they_are(images: Path, tmp_path: Path, settled: None) -> None:
    name = os.fsdecode(bytes(images) + b"/train/a/\xff\n.jpg")
    build(images / "train", "a/ü/數.png")
    Path(name).touch()
    first = opened(images, tmp_path / "kept")
    assert (name, 0) in first
    assert opened(images, tmp_path / "kept") == first == seen(open_folder(str(images)))


def kept_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_an_index_with_any_byte_changed_or_cut_gives_the_same_images(
    images: Path, tmp_path: Path, settled: None, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    expected = opened(images, kept)
    file = kept_file(kept)
    good, chance, lines = file.read_bytes(), random.Random(1), 0
    for number in range(150):
        at = chance.randrange(len(good))
        file.write_bytes(good[:at] if number % 10 == 0 else good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        assert seen(open_folder(str(images), Places(str(kept)))) == expected
        said = capsys.readouterr().err
        if said:
            assert said == f"the index {file} can't be used (it is damaged): all folders are listed again\n"
        lines += bool(said)
    assert lines > 100


def test_an_index_of_another_folder_or_version_is_not_used(images: Path, tmp_path: Path, settled: None) -> None:
    kept = tmp_path / "kept"
    opened(images, kept)
    other = build(tmp_path / "other", "train/z/1.jpg", "val/z/1.jpg")
    opened(other, kept)
    ours, theirs = sorted(kept.iterdir())
    content = [ours.read_bytes(), theirs.read_bytes()]
    ours.write_bytes(content[1])
    theirs.write_bytes(content[0])
    assert opened(images, kept) == seen(open_folder(str(images)))
    assert opened(other, kept) == seen(open_folder(str(other)))


def test_a_place_that_can_t_be_written_is_one_line_and_no_error(
    images: Path, tmp_path: Path, settled: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert opened(images, tmp_path / "file" / "kept") == seen(open_folder(str(images)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"the index {tmp_path}/file/kept/")
    assert first.endswith("can't be used (Not a directory): all folders are listed again")
    assert second.endswith("can't be written (Not a directory): the folders will be listed again")


def test_what_a_killed_writer_left_is_swept_and_not_read(images: Path, tmp_path: Path, settled: None) -> None:
    kept = tmp_path / "kept"
    opened(images, kept)
    left, fresh = (kept / f".{kept_file(kept).name}-{word}" for word in ("left", "fresh"))
    left.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(left, (1, 1))
    build(images, "train/b/3.jpg")
    assert len(opened(images, kept)) == 13
    assert sorted(path.name for path in kept.iterdir()) == sorted([fresh.name, fresh.name[1:].partition("-fresh")[0]])


def list_and_tell(path: Path, shared: Path, kept: Path, names: multiprocessing.Queue[tuple[int, object]]) -> None:
    real = listing.list_class

    def noting(folder: str) -> listing.ClassListing:
        names.put((os.getpid(), folder))
        return real(folder)

    listing.list_class = noting
    names.put((os.getpid(), seen(open_folder(str(path), Places(str(kept), str(shared))))))


@pytest.mark.parametrize("writable", [True, False])
def test_the_ranks_of_a_pod_list_once_and_see_the_same(images: Path, tmp_path: Path, writable: bool) -> None:
    kept = tmp_path / ("kept" if writable else "data/train/a/1.jpg/no")
    fork = multiprocessing.get_context("fork")
    names: multiprocessing.Queue[tuple[int, object]] = fork.Queue()
    (tmp_path / "shared").mkdir()
    ranks = [fork.Process(target=list_and_tell, args=(images, tmp_path / "shared", kept, names)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    told = [names.get(timeout=60) for _ in range(6 + 4)]
    for rank in ranks:
        rank.join()
    assert len({pid for pid, said in told if isinstance(said, str)}) == 1
    found = [said for _, said in told if isinstance(said, list)]
    assert found == [seen(open_folder(str(images)))] * 4


def test_files_that_come_while_a_pod_starts_are_seen_by_all_of_its_ranks_or_none(images: Path, tmp_path: Path) -> None:
    first = seen(open_folder(str(images), Places(shared=str(tmp_path))))
    build(images, "train/a/0.jpg")
    assert seen(open_folder(str(images), Places(shared=str(tmp_path)))) == first


def test_a_rank_that_dies_while_the_others_wait_for_it_leaves_the_work_to_them(images: Path, tmp_path: Path) -> None:
    def stuck(known: Mapping[str, Listing]) -> tuple[dict[str, Listing], int]:
        (tmp_path / "began").touch()
        time.sleep(600)
        raise AssertionError

    fork = multiprocessing.get_context("fork")
    places = Places(shared=str(tmp_path))
    dying = fork.Process(target=index.listings, args=(str(images), places, stuck))
    dying.start()
    while not (tmp_path / "began").exists():
        assert dying.is_alive()
        time.sleep(0.01)
    names: multiprocessing.Queue[tuple[int, object]] = fork.Queue()
    waiting = fork.Process(target=list_and_tell, args=(images, tmp_path, tmp_path / "kept", names))
    waiting.start()
    os.kill(dying.pid or 0, signal.SIGKILL)
    dying.join()
    told = [names.get(timeout=60) for _ in range(6 + 1)]
    waiting.join()
    assert told[-1][1] == seen(open_folder(str(images)))


def test_an_error_of_the_first_rank_is_the_error_of_all(images: Path, tmp_path: Path) -> None:
    (images / "val" / "b" / "1.jpg").unlink()
    (images / "val" / "b" / "2.jpg").unlink()
    for _ in range(2):
        with pytest.raises(TrainingError, match="val/b holds no image"):
            open_folder(str(images), Places(str(tmp_path / "kept"), str(tmp_path)))


def test_a_link_to_nothing_that_becomes_a_link_to_a_folder_is_seen(images: Path, tmp_path: Path, settled: None) -> None:
    (images / "train" / "a" / "link").symlink_to(tmp_path / "later")
    assert len(opened(images, tmp_path / "kept")) == 12
    build(tmp_path / "later", "3.jpg")
    assert len(opened(images, tmp_path / "kept")) == 13


def test_a_link_back_is_one_line_and_a_link_to_itself_no_folder(images: Path) -> None:
    (images / "train" / "a" / "self").symlink_to("self")
    assert len(seen(open_folder(str(images)))) == 12
    (images / "train" / "a" / "sub").mkdir()
    (images / "train" / "a" / "sub" / "back").symlink_to(images / "train" / "a")
    with pytest.raises(TrainingError) as error:
        open_folder(str(images))
    assert error.value.code == ExitCode.DATA_MISSING
    assert error.value.message == f"{images}/train/a/sub/back cannot be read: {os.strerror(errno.ELOOP)}"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({}, "run/index"),
        ({"index_cache": "there"}, "there"),
        ({"index_cache": "none"}, None),
        ({"steps_per_epoch": 3}, None),
        ({"steps_per_epoch": 3, "index_cache": "there"}, "there"),
    ],
)
def test_a_training_keeps_its_index_with_its_checkpoints_or_where_it_is_told(
    images: Path, tmp_path: Path, settled: None, changes: dict[str, object], where: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    time.sleep(TICK)
    values = {"dataset": "imagenet", "dataset_path": str(images), "checkpoint_dir": "run", **changes}
    open_dataset(TrainConfig(**values))  # type: ignore[arg-type]
    found = [str(path.parent) for path in Path().rglob("*.npz")]
    assert found == ([where] if where else [])
