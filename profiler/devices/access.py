"""Whether this user may use a device node, and what to do where not."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

try:
    import grp
    import pwd
except ImportError:  # Windows has neither these nor such nodes
    grp = pwd = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Denied:
    """Why a node may not be used.

    Attributes:
        reason: The node's owner, group and mode, in words.
        fix: What to do.
    """

    reason: str
    fix: str


def denied(path: str | Path) -> Denied | None:
    """Why this process may not read and write a device node; None where it may.

    Raises:
        OSError: there is no such node.
    """
    status = os.stat(path)
    if may(path, os.R_OK | os.W_OK):
        return None
    group, user = group_name(status.st_gid), _user_name()
    mode = stat.filemode(status.st_mode)
    reason = f"{path} is {mode} of group {group}, and {user} may not use it"
    if status.st_mode & 0o060 != 0o060:
        return Denied(reason, f"sudo chmod g+rw {path}, and let a udev rule do it: profile doctor --udev-rules")
    if status.st_gid in _groups_in_the_books(user):
        return Denied(f"{reason} yet: this login is older than its membership", "log out and in again")
    return Denied(reason, f"sudo usermod -aG {group} {user}, then log out and in again")


def may(path: str | Path, mode: int) -> bool:
    """:func:`os.access` for the rights that this process has now, which are not those of who started it under sudo."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (AttributeError, KeyError):
        return str(number)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _groups_in_the_books(user: str) -> list[int]:
    """Those a new login would get."""
    try:
        return os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return []
