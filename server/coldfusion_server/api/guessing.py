"""
Who sends wrong tokens waits, longer each time: by address, and by the token that is guessed at.

Nobody guesses one of 256 random bits; what this saves is the work of looking, and the log. It must
not keep out honest people, who may share an address with whoever guesses. So a token that was good
before passes from anywhere, and one that nobody has guessed at yet is looked at once, whatever its
address has done. Out is only who comes for the first time since this process began, as long as
somebody who knows the id of that very token goes on guessing at it. A wait is never longer than a
minute, and refused tries do not make it longer. Each process counts for itself, for the reasons of
`rate_limits`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from threading import Lock
from typing import TypeVar

from coldfusion_server.services.context import Context
from coldfusion_server.services.joining import invitation_id_of, join
from coldfusion_server.services.sign_in import sign_in
from coldfusion_server.services.tokens import Principal, authenticate, digest, token_id_of
from coldfusion_shared.errors import (
    ColdFusionError,
    InvitationRefused,
    RateLimited,
    SignInRefused,
    Unauthenticated,
)
from coldfusion_shared.schemas.invitations import Join, Joined
from coldfusion_shared.schemas.sign_in import SignedIn, SignIn

T = TypeVar("T")

LONGEST_SECONDS = 60.0
# Without a wrong one for so long, everything begins anew.
FORGET_SECONDS = 15 * 60.0
# So many of each are remembered.
MOST = 50_000


@dataclass(frozen=True)
class Tried:
    """
    A token or a code that is tried.

    Attributes:
        address: from where.
        subject: id of what is guessed at; null: it has no such form.
        digest: of all of it.
    """

    address: str
    subject: str | None
    digest: str

    @classmethod
    def once(cls, address: str, text: str) -> Tried:
        """Return what has no id, and is good once: a try at it says nothing of any other one."""
        found = digest(text)
        return cls(address, f"sign-in-{found[:16]}", found)

    @property
    def keys(self) -> list[str]:
        """What it is counted by."""
        # An address has a dot or a colon, and no id has.
        return [self.address, *self.subjects]

    @property
    def subjects(self) -> list[str]:
        """What it is counted by, where its address waits already."""
        return [] if self.subject is None else [self.subject]


@dataclass
class _Wrong:
    """How many wrong ones came, when the last one did, and until when the next one waits."""

    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Guesses:
    """Counts wrong tokens and codes; safe to use from several threads."""

    def __init__(
        self,
        free: int,
        clock: Callable[[], float],
        tell: Callable[[str, str | None], None] = lambda address, subject: None,
    ) -> None:
        """
        Begin to count.

        Args:
            free: how many may be wrong before there is a wait; 0: any.
            clock: in seconds.
            tell: called with address and id where somebody begins to wait.
        """
        self._free = free
        self._clock = clock
        self._tell = tell
        self._wrong: OrderedDict[str, _Wrong] = OrderedDict()
        # Digests.
        self._good: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def authenticate(self, ctx: Context, address: str, token: str) -> Principal:
        """Return who holds `token`, as `tokens.authenticate` does; raises `RateLimited`, too."""
        tried = Tried(address, token_id_of(token), digest(token))
        return self.watch(tried, lambda: authenticate(ctx, token), Unauthenticated)

    def join(self, ctx: Context, address: str, wanted: Join, key: str) -> Joined:
        """Use an invitation, as `joining.join` does; raises `RateLimited`, too."""
        tried = Tried(address, invitation_id_of(wanted.code), digest(wanted.code))
        return self.watch(tried, lambda: join(ctx, wanted, key), InvitationRefused)

    def sign_in(self, ctx: Context, address: str, wanted: SignIn, key: str) -> SignedIn:
        """Use an id token, as `sign_in.sign_in` does; raises `RateLimited`, too."""
        tried = Tried.once(address, wanted.id_token)
        return self.watch(tried, lambda: sign_in(ctx, wanted, key), SignInRefused)

    def watch(self, tried: Tried, look: Callable[[], T], wrong: type[ColdFusionError]) -> T:
        """
        Return what `look` returns, and count it where it raises `wrong`.

        Args:
            tried: what is tried, and from where.
            look: looks whether it is right.
            wrong: what it raises if not.

        Raises:
            RateLimited: too many were wrong; this one was not looked at, or is wrong, too.
        """
        if not self._free:
            return look()
        wait, is_new = self._wait(tried)
        if wait and not is_new:
            raise _too_many(wait)
        try:
            found = look()
        except wrong:
            if self._note(tried.subjects if wait else tried.keys):
                self._tell(tried.address, tried.subject)
            if wait:
                raise _too_many(wait) from None
            raise
        self._remember(tried)
        return found

    def _wait(self, tried: Tried) -> tuple[float, bool]:
        """Return how long it has to wait, in seconds, and whether nobody has guessed at it."""
        with self._lock:
            if tried.digest in self._good:
                return 0.0, False
            now = self._clock()
            counted = [self._wrong[key] for key in tried.keys if key in self._wrong]
            guessed = [self._wrong[key] for key in tried.subjects if key in self._wrong]
            is_new = tried.subject is not None and all(
                now - one.last > FORGET_SECONDS for one in guessed
            )
        return max((one.until - now for one in counted if one.until > now), default=0.0), is_new

    def _note(self, keys: Sequence[str]) -> bool:
        """Count a wrong one by `keys`; return whether a wait begins with it."""
        begins = False
        with self._lock:
            now = self._clock()
            for key in keys:
                one = self._wrong.setdefault(key, _Wrong())
                self._wrong.move_to_end(key)
                if now - one.last > FORGET_SECONDS:
                    one.count = 0
                one.count, one.last = one.count + 1, now
                begins = begins or one.count == self._free
                if one.count >= self._free:
                    # Beyond six doublings it is the longest wait anyway.
                    wait = 2.0 ** min(one.count - self._free, 6)
                    one.until = now + min(wait, LONGEST_SECONDS)
            while len(self._wrong) > MOST:
                self._wrong.popitem(last=False)
        return begins

    def _remember(self, tried: Tried) -> None:
        with self._lock:
            self._good[tried.digest] = None
            self._good.move_to_end(tried.digest)
            while len(self._good) > MOST:
                self._good.popitem(last=False)


def _too_many(wait: float) -> RateLimited:
    return RateLimited(
        "Too many wrong tokens came from your address, or for this token.",
        hint="Wait the seconds of Retry-After, then try again with one that was copied whole.",
        retry_after=ceil(wait),
    )
