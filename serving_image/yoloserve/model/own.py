"""A folder of the cache that is this user's alone: what runs as code is read from nowhere else.

Compiled networks and engines are native code, and a conversion is taken in the place of the model
that was checked. Their names say what they were made from, not by whom, and the digest in them
finds damage, not malice: whoever can write there could write it, too. The cache itself cannot be
asked: an `emptyDir` is open to all (0777), a volume to its group. So this folder is made for us
(0700) and looked through at each start.
"""

import errno
import logging
import os
import shutil
import stat
from pathlib import Path
from secrets import token_hex

log = logging.getLogger(__name__)

OWN = 0o700
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
TRIES = 3  # another process may set the same folder aside


def own_folder(cache: Path) -> Path:
    """Return our folder in the cache, made if it is absent; raise `OSError` if it cannot be had.

    One that others could have written to is set aside unread, and begun anew.
    """
    folder = cache / f"own-{os.geteuid()}"
    cache.mkdir(parents=True, exist_ok=True)
    for _ in range(TRIES):
        try:
            folder.mkdir(OWN)
        except FileExistsError:
            if (why := _distrusted(folder)) is None:
                folder.chmod(OWN)
                return folder
            log.warning("cache not read", extra={"folder": str(folder), "reason": why})
            _set_aside(folder)
        else:
            folder.chmod(OWN)  # whatever the umask leaves of it
            if folder.stat().st_mode & WRITABLE_BY_OTHERS:  # as on SMB: it would go at each start
                folder.rmdir()
                message = "no folder of our own: modes mean nothing on this volume"
                raise PermissionError(errno.EPERM, message, str(folder))
            return folder
    raise FileExistsError(0, f"others keep making {folder}")


def _distrusted(folder: Path) -> str | None:
    """Say why what is in a folder may be somebody else's work; none if it cannot be."""
    has = folder.lstat()
    if not stat.S_ISDIR(has.st_mode):
        return "it is no folder"
    if has.st_uid != os.geteuid():
        return f"it belongs to another user ({has.st_uid})"
    if has.st_mode & WRITABLE_BY_OTHERS:
        return (
            f"others can write to it (mode {stat.S_IMODE(has.st_mode):o}; a volume's fsGroup does "
            "that at each mount, unless fsGroupChangePolicy is OnRootMismatch)"
        )
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                inside = os.lstat(Path(where) / name)
            except FileNotFoundError:  # another process was done with it
                continue
            if inside.st_uid != os.geteuid():
                return f"{name} in it belongs to another user ({inside.st_uid})"
            if not stat.S_ISDIR(inside.st_mode) and not stat.S_ISREG(inside.st_mode):
                return f"{name} in it is no regular file"
    return None


def _set_aside(folder: Path) -> None:
    aside = folder.with_name(f".distrusted-{token_hex(8)}")
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process has done so
        return
    if aside.is_symlink() or not aside.is_dir():
        aside.unlink()
    else:
        shutil.rmtree(aside, ignore_errors=True)
