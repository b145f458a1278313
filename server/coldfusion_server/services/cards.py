"""Model cards: what a base is, where it comes from and how to use it, in Markdown."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from coldfusion_server.services.context import Context
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry

CARD_FILE = "README.md"


def with_card(ctx: Context, manifest: Manifest) -> Manifest:
    """Return `manifest` with the card of the base that it describes, which is stored."""
    stored = ctx.store.put([render_card(manifest).encode()])
    card = FileEntry(path=CARD_FILE, size=stored.size, sha256=stored.sha256)
    return manifest.model_copy(update={"files": [card, *manifest.files]})


def render_card(manifest: Manifest) -> str:
    """Return the card of the base that `manifest` describes."""
    return _template().render(
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
