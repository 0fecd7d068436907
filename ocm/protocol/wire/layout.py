r"""Declare a wire layout once: a construct for reading it slowly and surely, fields to derive the rest from.

construct keeps its references (``this.room_size``) in private names, so a layout built from bare construct
classes cannot be read back. The helpers here declare the same thing and remember what they said: ``derive``
makes the relay's codec from it, ``docs/`` the packet diagrams.

>>> GREETING = Layout("Greeting", SizeOf("name_size", of="name"), Sized("name", by="name_size"), Rest("text"))
>>> GREETING.parse(b"\x03bobhello")
(b'bob', b'hello')
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, assert_never

from construct import (
    Bytes,
    BytesInteger,
    Construct,
    ConstructError,
    GreedyBytes,
    Rebuild,
    Struct,
    Terminated,
    len_,
    this,
)

from ocm.errors import LocalProtocolError, RemoteProtocolError


@dataclass(frozen=True, slots=True)
class UInt:
    """An unsigned big-endian integer of ``size`` bytes."""

    name: str
    size: int = 1


@dataclass(frozen=True, slots=True)
class SizeOf:
    """An unsigned big-endian integer of ``size`` bytes that counts the bytes of the field ``of``."""

    name: str
    of: str
    size: int = 1


@dataclass(frozen=True, slots=True)
class Fixed:
    """Exactly ``size`` bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Sized:
    """As many bytes as the earlier field ``by`` says."""

    name: str
    by: str


@dataclass(frozen=True, slots=True)
class Rest:
    """Every byte to the end; the last field only."""

    name: str


Field: TypeAlias = UInt | SizeOf | Fixed | Sized | Rest
Value: TypeAlias = int | bytes


def _construct_of(part: Field) -> Construct[Any, Any]:
    match part:
        case UInt(_, size):
            return BytesInteger(size)
        case SizeOf(_, of, size):
            return Rebuild(BytesInteger(size), len_(this[of]))
        case Fixed(_, size):
            return Bytes(size)
        case Sized(_, by):
            return Bytes(this[by])
        case Rest():
            return GreedyBytes
        case _:
            assert_never(part)


@dataclass(frozen=True)
class Layout:
    """A sequence of fields. Its values are those of every field but the ``SizeOf`` ones, in order.

    ``parse`` and ``build`` go through construct: they are the truth that derived codecs are held to.
    """

    title: str
    fields: tuple[Field, ...]
    names: tuple[str, ...] = field(init=False)
    """Names of the values, in order."""
    struct: Construct[Any, Any] = field(init=False, repr=False)

    def __init__(self, title: str, *parts: Field) -> None:
        """Declare a layout. A field may only refer to one declared before it, a ``SizeOf`` to one after it.

        Raises ``LocalProtocolError`` for a field behind one that goes to the end.
        """
        if any(isinstance(part, Rest) for part in parts[:-1]):
            raise LocalProtocolError("nothing can follow a field that goes to the end")
        whole = [part.name / _construct_of(part) for part in parts]
        set_once: Final = object.__setattr__
        set_once(self, "title", title)
        set_once(self, "fields", parts)
        set_once(self, "names", tuple(part.name for part in parts if not isinstance(part, SizeOf)))
        set_once(self, "struct", Struct(*whole, Terminated))

    def parse(self, data: bytes) -> tuple[Value, ...]:
        """Read ``data`` whole. Raises ``RemoteProtocolError`` and nothing else."""
        try:
            raw = self.struct.parse(data)
        except ConstructError:
            # construct's own message would quote the bytes, and its traceback holds them
            raise RemoteProtocolError(f"malformed {self.title.lower()}") from None
        return tuple(raw[name] for name in self.names)

    def build(self, *values: Value) -> bytes:
        """Write the values, in the order of ``names``. Raises ``LocalProtocolError`` when one does not fit."""
        try:
            return bytes(self.struct.build(dict(zip(self.names, values, strict=True))))
        except (ConstructError, ValueError, OverflowError, TypeError):
            raise LocalProtocolError(f"a field does not fit its place in a {self.title.lower()}") from None
