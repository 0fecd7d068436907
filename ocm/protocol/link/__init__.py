"""A member's door: bytes of one profile in and out, `Intent` and `Entry` inside."""
