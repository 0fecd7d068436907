"""Where clients keep their state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path


def state_folder(*, environment: Mapping[str, str], home: Path) -> Path:
    """Return the folder for what this user's programs remember.

    It lies in ``$XDG_STATE_HOME``, or in ``~/.local/state`` where that is unset or no absolute path (XDG Base
    Directory Specification 0.8).
    """
    named = Path(environment.get("XDG_STATE_HOME", ""))
    return (named if named.is_absolute() else home / ".local" / "state") / "ocm"


def state_path(fingerprint: str, room: str, user: str, *, environment: Mapping[str, str], home: Path) -> Path:
    """Return the file that keeps what ``user`` remembers of ``room`` on the server with this key.

    It lies in ``state_folder``. Its name shows none of the three, and no name of a room leads anywhere else.

    Args:
        fingerprint: SHA-256 of the server's public key, in hex.
        room: the room's name.
        user: the user's name.
        environment: ``os.environ``, or what stands for it.
        home: the home folder.
    """
    digest = hashlib.sha256()
    for part in (fingerprint.lower().encode(), room.encode(), user.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)  # so that no two of the three run into each other
    return state_folder(environment=environment, home=home) / f"{digest.hexdigest()}.db"
