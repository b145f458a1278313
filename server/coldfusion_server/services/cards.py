"""Model cards: what a base is, where it comes from and how to use it, in Markdown."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from coldfusion_server.services import bases
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry

CARD_FILE = "README.md"


def with_card(ctx: Context, manifest: Manifest) -> Manifest:
    """Return `manifest` with the card of the base that it describes, which is stored."""
    public = ctx.settings.public_url
    live = None if public is None else live_url(public, manifest.model, manifest.version)
    stored = ctx.store.put([render_card(manifest, live).encode()])
    card = FileEntry(path=CARD_FILE, size=stored.size, sha256=stored.sha256)
    return manifest.model_copy(update={"files": [card, *manifest.files]})


def live_url(server: str, model: str, version: str) -> str:
    """Return where `server` shows the card with what has been measured since it was stored."""
    return f"{server.rstrip('/')}/v1/models/{model}/bases/{version}/card"


def stored_card(ctx: Context, name: str, version: str, principal: Principal | None) -> str:
    """
    Return the card of a base, as it was stored with it and never changes.

    Raises:
        ModelNotFound, BaseNotFound, FileNotInBase: it is not there, or `principal` may not see it.
        StorageUnavailable: the store has lost it.
    """
    file = bases.get_file(ctx, name, version, CARD_FILE, principal)
    source = ctx.store.source(file.sha256)
    try:
        content = bytearray(source.size)
        source.read_into(0, memoryview(content))
    finally:
        source.close()
    return content.decode()


def render_card(manifest: Manifest, live: str | None) -> str:
    """Return the card of the base that `manifest` describes; `live` is where scores are added."""
    return _template().render(
        live=live,
        base=manifest,
        size=sum(file.size for file in manifest.files),
        contributors=sorted({item.contributor for item in manifest.contributions}),
    )


@cache
def _template() -> Template:
    # Markdown, not HTML; names in it are restricted to plain characters when they are made.
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)
