"""Native code is read only from a folder that nobody else could have written to."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from yoloserve.model import own
from yoloserve.model.own import own_folder

PLANTED = "planted.blob"


def test_it_is_ours_alone_though_the_cache_is_open_to_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)  # as an emptyDir is
    before = os.umask(0o002)
    try:
        folder = own_folder(tmp_path)
    finally:
        os.umask(before)
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.geteuid())
    assert folder.parent == tmp_path


def test_what_is_in_it_stays_from_start_to_start(tmp_path: Path) -> None:
    (own_folder(tmp_path) / "compiled").mkdir()
    (own_folder(tmp_path) / "compiled" / "network.blob").write_text("ours")
    assert (own_folder(tmp_path) / "compiled" / "network.blob").read_text() == "ours"


def open_to_the_group(folder: Path) -> None:
    folder.chmod(0o770)


def open_to_all(folder: Path) -> None:
    folder.chmod(0o707)


def a_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def holding_a_link(folder: Path) -> None:
    (folder / "model.blob").symlink_to("/etc/hostname")


@pytest.mark.parametrize("spoil", [open_to_the_group, open_to_all, a_link, holding_a_link])
def test_what_others_could_have_written_is_not_read_and_made_anew(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = own_folder(tmp_path)
    (folder / PLANTED).write_text("code")
    spoil(folder)
    again = own_folder(tmp_path)
    assert list(again.iterdir()) == []
    assert not again.is_symlink()
    assert again.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.glob(".distrusted-*"))


def test_where_modes_mean_nothing_there_is_no_folder_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on SMB and vfat: it would be set aside at each start, with what the start before made."""
    made = Path.mkdir
    monkeypatch.setattr(Path, "chmod", lambda *_, **__: None)
    monkeypatch.setattr(
        Path, "mkdir", lambda path, *_, **told: (made(path, **told), os.chmod(path, 0o777))
    )
    with pytest.raises(PermissionError, match="no folder of our own"):
        own_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_belongs_to_another_user_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = own_folder(tmp_path)
    (theirs / PLANTED).write_text("code")
    user = os.geteuid()
    monkeypatch.setattr(own.os, "geteuid", lambda: user + 1)
    theirs.rename(tmp_path / f"own-{user + 1}")
    assert list(own_folder(tmp_path).iterdir()) == []
    [told] = caplog.records
    assert f"belongs to another user ({user})" in vars(told)["reason"]
    assert not list(tmp_path.rglob(PLANTED))


def test_a_folder_of_another_user_that_cannot_be_moved_leaves_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_folder(tmp_path).chmod(0o777)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # in /tmp, whose sticky bit is set

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        own_folder(tmp_path)
