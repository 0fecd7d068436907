"""Keys and forks: a child process has the keys of its parent, and must seal nothing with them (TCRP/2 section 2)."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class KeyOwner(Protocol):
    """Whoever has sealers."""

    def disown(self) -> None:
        """Seal nothing any more."""
        ...


_owners: Final[weakref.WeakSet[KeyOwner]] = weakref.WeakSet()


def watch(owner: KeyOwner) -> None:
    """Have ``owner`` disowned in every child process that is forked from this one, as long as it lives."""
    _owners.add(owner)


def _disown_all() -> None:
    for owner in list(_owners):
        owner.disown()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_disown_all)
