"""The session of TCRP/2: keys, sealing, the path, recovery."""
