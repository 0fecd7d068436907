"""The server's driver: feeds the hub what arrived, acts on what it releases, re-arms its timers."""
