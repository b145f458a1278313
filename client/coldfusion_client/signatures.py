"""Whether a base is its Repository's own, found out before any of its files is brought."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from coldfusion_client.cache import Cache
from coldfusion_client.disk import write_atomically
from coldfusion_client.source import Source
from coldfusion_shared.errors import BadSignature, KeyChanged, NotFound, Untrusted
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.signing.heads import Head, check_head, new_nonce
from coldfusion_shared.signing.keys import PublicKey
from coldfusion_shared.signing.model_signature import check_base


def newest(source: Source, model: str, key: PublicKey) -> Head:
    """
    Return which base the server says is the newest, at this moment.

    Raises:
        ModelNotFound: there is no such model.
        KeyChanged, BadSignature: it is not the owner of `key` who says so.
    """
    nonce = new_nonce()
    try:
        signed = source.api.head(model, nonce)
    except NotFound as error:
        raise _unsigned(error, source, f"the newest base of {model}") from None
    return check_head(signed, model, nonce, key)


def check_signature(source: Source, base: Base, key: PublicKey) -> None:
    """
    Make sure that the owner of `key` has published `base`; its signature is then in the cache.

    Raises:
        KeyChanged, BadSignature: it has another signature, or none.
    """
    file = _file(source.cache, base.digest)
    # One that is damaged, or of a key from before, is asked for again.
    with suppress(OSError, UnicodeDecodeError, Untrusted):
        check_base(file.read_text(encoding="utf-8"), base.manifest, key)
        return
    try:
        signature = source.api.signature(base.model, base.version)
    except NotFound as error:
        raise _unsigned(error, source, f"{base.model} {base.version}") from None
    check_base(signature, base.manifest, key)
    write_atomically(file, signature.encode())


def key_changed(error: KeyChanged, source: Source) -> KeyChanged:
    """Return `error` with what to type for the server that it came from."""
    return KeyChanged(
        error.message,
        hint="Ask the operator, by another way than this server, whether the key was changed. If "
        f"so, coldfusion-client key --key FILE --server {source.api.server} takes the new one. If "
        "not, somebody in between, or on the server, has put something else there.",
    )


def kept_signature(cache: Cache, digest: str) -> bytes | None:
    """Return the signature of the base of that digest, if one was found good."""
    try:
        return _file(cache, digest).read_bytes()
    except FileNotFoundError:
        return None


def _file(cache: Cache, digest: str) -> Path:
    return cache.root / "signatures" / f"{digest}.sig"


def _unsigned(error: NotFound, source: Source, what: str) -> NotFound | BadSignature:
    """Tell a server that knows no signatures from a model or a base that is not there."""
    if type(error) is not NotFound:
        return error
    return BadSignature(
        f"{source.api.server} has no signature of {what}, though there is a key of its bases.",
        hint=error.hint
        or "Ask the operator. If the server does not sign any more, let its key go with: "
        f"coldfusion-client key --forget --server {source.api.server}",
    )
