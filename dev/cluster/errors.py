"""What can go wrong, sorted by who must act.

ClusterError
├── NotPossibleHere   the person: something is missing that this command cannot get by itself
└── StepFailed        whoever reads the log: a command failed; the message ends with its last lines
"""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 25


class ClusterError(Exception):
    """Any failure this package explains."""


class NotPossibleHere(ClusterError):
    """Says what is missing and how to provide it."""


class StepFailed(ClusterError):
    """A command of a step failed; carries the tail of what it wrote into its log."""

    def __init__(self, command: str, outcome: str, log: Path, *, since: int = 0) -> None:
        """`outcome` says how it ended: an exit status, a signal, a time limit.

        since: where its output begins in the log, in bytes; what is before is of other commands.
        """
        written = log.read_bytes()[since:] if log.exists() else b""
        tail = written.decode(errors="replace").splitlines()[-TAIL_LINES:]
        self.told = "\n".join(tail)
        super().__init__(
            "\n".join(
                [
                    f"{command}: {outcome}",
                    *(f"  | {line}" for line in tail),
                    f"The whole log: {log}",
                    "Run the same command again to go on after the last finished step;"
                    " `python3 -m cluster purge` starts from nothing.",
                ]
            )
        )
