"""The pure core: bytes, time, randomness and ids come in; events and bytes go out."""
