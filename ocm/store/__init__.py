"""Where rooms and clients remember: journals and client state."""
