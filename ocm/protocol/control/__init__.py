"""The control conversation of classic TCRP, both sides: ask to create or join a room, be told, get a token.

One connection carries one request at a time, in one of three forms told apart by the request itself:

=========== ============================ =========================================================
form        request                      replies when accepted
=========== ============================ =========================================================
OCM         stage 0, JSON with ``user``  1: ``{"status_code": 200}``, 2: the same with ``user_token``
PLAIN       stage 0, bare user name      1: ``OK``, 2: the token
REFERENCE   stage 1, bare user name      1: byte 200 behind a fixed header, 2: JSON as in OCM
=========== ============================ =========================================================

The machines know no socket and no clock; drivers feed them and write what they return.
"""
