"""Read by every Python that starts with this folder on its path: marks secrets (see ``tests/canaries.py``)."""

import os

if "CANARIES" in os.environ:
    import secrets

    _token_bytes = secrets.token_bytes

    def _marked(nbytes: int | None = None) -> bytes:
        data = _token_bytes(nbytes)
        return data[:4] + b"\xc4\x9a\x7e\x01\xca\xfe" * 3 + data[22:] if len(data) == 32 else data

    secrets.token_bytes = _marked
