"""Tars and devkit: read as they are meant, refused in one line where they are not."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.data.ilsvrc.devkit import read_devkit
from app.data.ilsvrc.tars import members
from app.data.pread import OpenFile
from app.data.tarindex import Member
from app.resilience.exit_codes import ExitCode, TrainingError
from tests.ilsvrc_tars import devkit_of, meta_mat, tar_of

WNIDS = ["n00000003", "n00000001", "n00000002"]
FILES = st.lists(st.tuples(st.from_regex(r"[a-zA-Z0-9_][\w.-]{0,120}", fullmatch=True).filter(str.isascii),
                           st.binary(max_size=1500)), max_size=5, unique_by=lambda file: file[0])  # fmt: skip
PLENTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def refused(path: Path, inside: Member | None = None) -> str:
    with pytest.raises(TrainingError) as error:
        list(members(OpenFile(str(path)), inside))
    assert error.value.code == ExitCode.BAD_DATA
    assert "\n" not in error.value.message
    return error.value.message


@PLENTY
@given(files=FILES)
def test_every_member_of_a_tar_in_a_tar_is_found_where_its_bytes_are(
    tmp_path: Path, files: list[tuple[str, bytes]]
) -> None:
    (tmp_path / "outer.tar").write_bytes(
        tar_of([("before", b"x" * 700), ("inner.tar", tar_of(files)), ("after", b"y")])
    )
    outer = OpenFile(str(tmp_path / "outer.tar"))
    inner = next(member for member in members(outer) if member.name == "inner.tar")
    assert [(m.name, outer.read(m.offset, m.size)) for m in members(outer, inner)] == files


@PLENTY
@given(files=FILES.filter(bool), share=st.floats(0, 1))
def test_a_tar_that_was_cut_anywhere_is_never_taken_for_a_complete_one(
    tmp_path: Path, files: list[tuple[str, bytes]], share: float
) -> None:
    whole = tar_of(files)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        tar.getmembers()
        needed = tar.offset + tarfile.BLOCKSIZE
    (tmp_path / "cut.tar").write_bytes(whole[: int(share * (needed - 1))])
    assert f"{tmp_path}/cut.tar" in refused(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(whole[:needed])
    assert len(list(members(OpenFile(str(tmp_path / "cut.tar"))))) == len(files)


def test_the_member_in_which_a_tar_was_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tar_of([("a.JPEG", b"a" * 512), ("b.JPEG", b"b" * 2000)])[: 1024 + 512 + 1000])
    assert refused(path).startswith(f"{path} was cut or is damaged: its member b.JPEG needs 3536 bytes, it has 2536")
    path.write_bytes(tar_of([("a.JPEG", b"a" * 512), ("b.JPEG", b"b")])[:1024])
    assert "it ends after member a.JPEG, without the block of zeros" in refused(path)


def test_an_inner_tar_that_was_cut_is_named_with_its_outer_one(tmp_path: Path) -> None:
    path = tmp_path / "outer.tar"
    path.write_bytes(tar_of([("inner.tar", tar_of([("a.JPEG", b"a" * 3000)])[:2000]), ("other", b"z" * 4000)]))
    (inner, _) = members(OpenFile(str(path)))
    message = refused(path, inner)
    assert message.startswith(f"{path}: inner.tar was cut or is damaged: its member a.JPEG needs 3512 bytes")


def test_a_header_that_was_damaged_is_no_end(tmp_path: Path) -> None:
    content = bytearray(tar_of([("a.JPEG", b"a"), ("b.JPEG", b"b")]))
    content[1024 + 5] ^= 0xFF
    (tmp_path / "x.tar").write_bytes(content)
    assert "what comes after member a.JPEG is no member" in refused(tmp_path / "x.tar")


@pytest.mark.parametrize("content", [b"", b"JPEG" * 1000])
def test_what_is_no_tar_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    assert f"{tmp_path}/x.tar is no tar file" in refused(tmp_path / "x.tar")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../a.JPEG", tarfile.REGTYPE, "leads to another folder"),
        ("/etc/a.JPEG", tarfile.REGTYPE, "leads to another folder"),
        ("sub/a.JPEG", tarfile.REGTYPE, "leads to another folder"),
        ("./../a.JPEG", tarfile.REGTYPE, "leads to another folder"),
        ("..", tarfile.REGTYPE, "is no plain file name"),
        (".hidden", tarfile.REGTYPE, "is no plain file name"),
        ("a\nb.JPEG", tarfile.REGTYPE, "is no plain file name"),
        ("a.JPEG", tarfile.SYMTYPE, "is a symbolic link"),
        ("a.JPEG", tarfile.LNKTYPE, "is a hard link"),
        ("a.JPEG", tarfile.CHRTYPE, "is a device"),
        ("a.JPEG", tarfile.BLKTYPE, "is a device"),
        ("a.JPEG", tarfile.FIFOTYPE, "is a pipe"),
        ("a", tarfile.DIRTYPE, "is a folder"),
        ("a.JPEG", tarfile.GNUTYPE_SPARSE, "is of a kind"),
    ],
)
def test_a_member_that_could_do_harm_is_refused(tmp_path: Path, name: str, kind: bytes, words: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    assert words in refused(tmp_path / "x.tar")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of([("a.JPEG", b"1"), ("./a.JPEG", b"2")]))
    assert "holds a.JPEG twice" in refused(tmp_path / "x.tar")


def test_a_tar_made_of_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.JPEG").write_bytes(b"here")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "folder", ".")
    assert [member.name for member in members(OpenFile(str(tmp_path / "x.tar")))] == ["a.JPEG"]


def devkit(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "devkit.tar.gz").write_bytes(content)
    return str(tmp_path / "devkit.tar.gz")


def test_the_devkit_gives_the_classes_and_the_class_of_every_validation_image(tmp_path: Path) -> None:
    labels = read_devkit(devkit(tmp_path, devkit_of(meta_mat(WNIDS, 9), [1, 3, 2, 1])))
    assert labels.classes == ["n00000001", "n00000002", "n00000003"]
    assert labels.val == ["n00000003", "n00000002", "n00000001", "n00000003"]


def without_meta() -> bytes:
    return gzip.compress(tar_of([("kit/data/ILSVRC2012_validation_ground_truth.txt", b"1\n")]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no gzip", "file could not be opened"),
        (devkit_of(meta_mat(WNIDS, 9), [1])[:-30], ""),
        (devkit_of(meta_mat(WNIDS, 9), [1])[:200], ""),
        (without_meta(), "it holds no data/meta.mat"),
        (devkit_of(b"no MATLAB file", [1]), "data/meta.mat holds no synsets"),
        (devkit_of(meta_mat(WNIDS, 9)[:300], [1]), "data/meta.mat holds no synsets"),
        (devkit_of(meta_mat(["../evil"], 9), [1]), "names a class '../evil', not n and eight digits"),
        (devkit_of(meta_mat([WNIDS[0]] * 2, 9), [1]), "names a class twice"),
        (devkit_of(meta_mat(WNIDS, 9), [1, 2, 4]), "line 3 of data/ILSVRC2012_validation_ground_truth.txt is no class"),
        (devkit_of(meta_mat(WNIDS, 9), [0]), "line 1"),
        (devkit_of(meta_mat(WNIDS, 9), [10**4000]), "line 1"),
    ],
)  # fmt: skip
def test_what_is_no_devkit_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(TrainingError) as error:
        read_devkit(devkit(tmp_path, content))
    assert error.value.code == ExitCode.BAD_DATA
    assert error.value.message.startswith(f"{tmp_path}/devkit.tar.gz is not the ILSVRC2012 development kit: ")
    assert words in error.value.message
    assert "\n" not in error.value.message


def test_a_devkit_that_is_not_there_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as error:
        read_devkit(str(tmp_path / "nowhere"))
    assert error.value.code == ExitCode.DATA_MISSING


def test_without_scipy_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(TrainingError) as error:
        read_devkit(devkit(tmp_path, b""))
    assert error.value.code == ExitCode.FRAMEWORK_MISSING
    assert error.value.message.endswith("needs scipy: pip install '.[dataset]' in a clone of resnet-operator")
