"""Trouble, in one clear line that says what to do, and the exit status that goes with it."""

from __future__ import annotations

from typing import Final

import ocm
from ocm.cli.words import Words
from ocm.protocol.text import shorten

DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
_SENTENCE_SHOWN_MAX: Final = 300


class CommandFailed(Exception):
    """A command cannot go on: ``sentence`` says why, in the reader's language."""

    def __init__(self, sentence: str, *, status: int = FAILED) -> None:
        """Keep what to say and the exit status."""
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


def explain_serving(error: ocm.OcmError, host: str | None, words: Words) -> str:
    """Say why a server cannot run."""
    match error:
        case ocm.AddressInUse(kind=kind, port=port):
            option = "--port" if kind == "TCP" else "--udp-port"
            return words("serve.in_use", port=port, kind=kind, option=option)
        case ocm.TransportClosed():
            return words("serve.cannot_listen", host=host or "*", detail=error)
        case ocm.CertificateFailed():
            return words("serve.bad_certificate", detail=error)
        case ocm.JournalFailed():
            return words("serve.bad_journal", detail=error)
        case _:
            return words("fault.other", detail=error)


def explain_chatting(error: ocm.OcmError, server: str, words: Words) -> str:
    """Say why a room cannot be entered, or was lost for good."""
    match error:
        case ocm.RoomRefused(code=code, reason=reason):
            if f"refusal.{code}" in words:
                return words(f"refusal.{code}")
            return words("refusal.other", reason=shorten(reason, limit=_SENTENCE_SHOWN_MAX), code=code)
        case ocm.HandshakeFailed():
            return words("fault.no_tls", server=server)
        case ocm.ConnectFailed():
            return words("fault.unreachable", server=server)
        case ocm.StateFailed():
            return words("fault.state", detail=error)
        case ocm.TransportClosed():
            return words("fault.closed", server=server)
        case ocm.RemoteProtocolError():
            return words("fault.not_tcrp", server=server)
        case _:
            return words("fault.other", detail=error)


def code_of(error: ocm.OcmError) -> str | int:
    """Return the code that JSON carries: the server's number, or a word of ours."""
    match error:
        case ocm.RoomRefused(code=code):
            return code
        case ocm.HandshakeFailed():
            return "no_tls"
        case ocm.ConnectFailed():
            return "unreachable"
        case ocm.TransportClosed():
            return "closed"
        case ocm.RemoteProtocolError():
            return "not_tcrp"
        case _:
            return "failed"
