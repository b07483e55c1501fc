#!/usr/bin/env python3
"""An OCI runtime that takes from a container what this host itself may not have, then runs runc.

kind's nodes are `--privileged`: Docker asks for every capability there is, and runc fails with
"unable to apply caps" where the host's bounding set lacks one (nested virtual machines, some CI
runners). Registered as Docker's default runtime only there. Standalone: installed by copying.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# In the order of their numbers: <linux/capability.h>.
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(_NAMES.split())


def allowed(process_status: str) -> frozenset[str]:
    """Return the names in the bounding set that /proc/<pid>/status shows."""
    line = next(row for row in process_status.splitlines() if row.startswith("CapBnd:"))
    bits = int(line.split()[1], 16)
    return frozenset(f"CAP_{name}" for n, name in enumerate(CAPABILITIES) if bits >> n & 1)


def restrict(process: dict[str, Any], names: frozenset[str]) -> None:
    """Keep only the capabilities `names` in an OCI process."""
    sets = process.get("capabilities") or {}
    for kind, wanted in sets.items():
        sets[kind] = [name for name in wanted if name in names]


def spec_file(arguments: Sequence[str]) -> tuple[Path, bool] | None:
    """Return the file with the process that runc is asked to start, and whether it is a bundle's.

    `create` and `run` read config.json in the folder --bundle, `exec` the file --process.
    """
    options = {
        name: value
        for name, value in itertools.pairwise(arguments)
        if name in {"--bundle", "-b", "--process", "-p"}
    }
    if "create" in arguments or "run" in arguments:
        bundle = options.get("--bundle") or options.get("-b") or "."
        return Path(bundle) / "config.json", True
    process = options.get("--process") or options.get("-p")
    return (Path(process), False) if "exec" in arguments and process else None


def main() -> None:
    """Rewrite the specification in place; become runc."""
    if found := spec_file(sys.argv[1:]):
        path, is_bundle = found
        spec = json.loads(path.read_text())
        names = allowed(Path("/proc/self/status").read_text())
        restrict(spec["process"] if is_bundle else spec, names)
        path.write_text(json.dumps(spec))
    os.execvp("runc", ["runc", *sys.argv[1:]])


if __name__ == "__main__":
    main()
