"""What moves bytes and knows no message."""
