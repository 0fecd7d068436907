"""The client's driver: one control connection and one datagram port for each room."""
