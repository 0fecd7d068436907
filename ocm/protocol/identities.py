"""Who is known to a server of TCRP/2, and by which secret (TCRP/2 section 2).

Of a secret only its hash is kept. AUTH brings a new one, which counts when the journal has it; the one that was shown
stays good until the new one is used, or known to be where its client will find it again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ocm.protocol.entry import Identity
from ocm.protocol.limits import Limits
from ocm.protocol.link.modern import CLIENT_ID_SIZE
from ocm.protocol.link.modern_session import ModernSession
from ocm.protocol.session.keys import SECRET_SIZE, Randomness
from ocm.protocol.wire.records import Authenticate

CONNECTED_S: Final = 30 * 86_400.0
"""How long a journal keeps a client whose session the server never saw end."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody says who it is, and waits until the journal has its next secret."""

    session: ModernSession
    client: bytes
    resumed: bool
    """Whether it is who it was before."""
    secret: bytes = field(repr=False)
    """The next one."""


class Identities:
    """Everybody that is known. Nobody who has a session is ever forgotten."""

    def __init__(self, limits: Limits, *, randomness: Randomness, epoch_s: float) -> None:
        """Begin without anybody.

        Args:
            limits: how many, and for how long.
            randomness: for ids and secrets.
            epoch_s: what to add to ``now_s`` for the time of day.
        """
        self._limits = limits
        self._randomness = randomness
        self._epoch_s = epoch_s
        self._known: dict[bytes, Identity] = {}
        self._written: dict[bytes, Identity] = {}
        """The newest that was handed to the journal of each client, until the journal has it."""
        self._claims: dict[bytes, Claim] = {}
        self._forgotten_s: OrderedDict[bytes, float] = OrderedDict()
        """When those without a session are known no more, by the order of that.

        No wall clock, as in ``Identity.until_ms``: that may jump.
        """

    def restore(self, identities: Iterable[Identity], *, now_s: float) -> None:
        """Know everybody that a journal remembers, each for the whole time from now on."""
        for identity in identities:
            self._known[identity.client] = identity
            self._forgotten_s[identity.client] = now_s + self._limits.identity_timeout_s
        self._forget(now_s)

    def claim(self, session: ModernSession, request: Authenticate, *, now_s: float) -> Identity:
        """Hear who somebody says it is; return what the journal is to remember.

        A client that is not known, or does not show a secret of its own, is somebody new.
        """
        self._forget(now_s)
        known = self._shown(request)
        client, others = known or (self._randomness(CLIENT_ID_SIZE), ())
        secret = self._randomness(SECRET_SIZE)
        identity = Identity(client, (_digest(secret), *others), self._until_ms(now_s + CONNECTED_S))
        self._claims[identity.secrets[0]] = Claim(session, client, known is not None, secret)
        self._written[client] = identity
        return identity

    def recognized(self, identity: Identity, *, now_s: float) -> Claim | None:
        """Hear that the journal has an identity; return who waits for that."""
        client = identity.client
        if self._written.get(client) is identity:
            del self._written[client]
        is_new = client not in self._known
        self._known[client] = identity
        claim = self._claims.pop(identity.secrets[0], None)
        if claim is not None and not claim.session.is_over:
            self._forgotten_s.pop(client, None)
            return claim
        if is_new:
            self._forgotten_s[client] = now_s + self._limits.identity_timeout_s
        return None

    def stored(self, client: bytes, digest: bytes) -> Identity | None:
        """Hear that a client has a secret where it will find it; return what to remember, if that changes anything.

        No older one is good any more. A newer one is, if another session was given it meanwhile.
        """
        known = self._newest(client)
        if known is None or known.secrets[1:] in {(), (digest,)}:
            return None
        return self._write(known._replace(secrets=tuple(dict.fromkeys((known.secrets[0], digest)))))

    def parted(self, client: bytes, *, now_s: float) -> Identity | None:
        """Hear that a client's session has ended; return what to remember, unless another is about to begin."""
        self._forgotten_s.pop(client, None)
        self._forgotten_s[client] = now_s + self._limits.identity_timeout_s
        known = self._newest(client)
        self._forget(now_s)
        assert known is not None, "who has a session is not forgotten"
        if known.secrets[0] in self._claims:
            return None
        return self._write(known._replace(until_ms=self._until_ms(now_s + self._limits.identity_timeout_s)))

    def failed(self) -> list[ModernSession]:
        """Hear that the journal has nothing of what it does not say it has; return who waited for it."""
        self._written.clear()
        claims, self._claims = self._claims, {}
        return [claim.session for claim in claims.values()]

    # --- helpers ----------------------------------------------------------------------------------------

    def _shown(self, request: Authenticate) -> tuple[bytes, tuple[bytes, ...]] | None:
        """Return the client whose secret is shown, and that secret's hash."""
        if request.client is None or request.secret is None:
            return None
        known = self._newest(bytes.fromhex(request.client))
        if known is None:
            return None
        shown = _digest(bytes.fromhex(request.secret))
        if not sum(hmac.compare_digest(shown, digest) for digest in known.secrets):  # all of them: no early way out
            return None
        return known.client, (shown,)

    def _newest(self, client: bytes) -> Identity | None:
        """Return what a client is known by, or will be when the journal has it."""
        return self._written.get(client) or self._known.get(client)

    def _write(self, identity: Identity) -> Identity:
        self._written[identity.client] = identity
        return identity

    def _forget(self, now_s: float) -> None:
        """Forget who has been away for too long; while there are too many, who has been away for longest."""
        away = self._forgotten_s
        while away:
            client, at_s = next(iter(away.items()))
            if at_s > now_s and len(self._known) <= self._limits.identities_max:
                break
            del away[client]
            self._known.pop(client, None)

    def _until_ms(self, at_s: float) -> int:
        return int((self._epoch_s + at_s) * 1000)


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
