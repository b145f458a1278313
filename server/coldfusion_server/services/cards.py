"""Model cards: what a base is, where it comes from and how to use it, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from coldfusion_server.services import bases, card_data
from coldfusion_server.services.context import Context
from coldfusion_server.services.measured import Measurements
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.layout import CONFIG_FILE

CARD_FILE = "README.md"


def with_card(ctx: Context, manifest: Manifest, kept: Mapping[str, Any]) -> Manifest:
    """
    Return `manifest` with the card of the base that it describes, which is stored.

    Args:
        ctx: the service's surroundings.
        manifest: of a base without a card.
        kept: what programs are told of every base of the line: `of_folder`, then `handed_on`.
    """
    return _stored(ctx, manifest, kept, None)


def with_scores(ctx: Context, manifest: Manifest, measured: Measurements) -> Manifest:
    """Return `manifest`, of a candidate, with a card that tells what was `measured` of it."""
    live = _live(ctx, manifest)
    index = card_data.model_index(manifest.model, manifest.version, measured, live)
    if index is None:
        return manifest
    kept = handed_on(ctx, manifest.files)
    files = [file for file in manifest.files if file.path != CARD_FILE]
    return _stored(ctx, manifest.model_copy(update={"files": files}), kept, index)


def of_folder(folder: Path, source: str) -> dict[str, Any]:
    """Return what the card of the pretrained model in `folder`, from `source`, hands on."""
    file = folder / CARD_FILE
    card = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return card_data.of_pretrained(card_data.parse(card), config, source)


def handed_on(ctx: Context, files: Iterable[FileEntry]) -> dict[str, Any]:
    """Return what the card among `files`, those of a base, hands on to those that come from it."""
    for file in files:
        if file.path == CARD_FILE:
            return card_data.inherited(card_data.parse(read_card(ctx, file)))
    return {}


def _stored(
    ctx: Context,
    manifest: Manifest,
    kept: Mapping[str, Any],
    index: list[dict[str, Any]] | None,
) -> Manifest:
    text = render_card(manifest, _live(ctx, manifest), kept, index)
    stored = ctx.store.put([text.encode()])
    card = FileEntry(path=CARD_FILE, size=stored.size, sha256=stored.sha256)
    return manifest.model_copy(update={"files": [card, *manifest.files]})


def _live(ctx: Context, manifest: Manifest) -> str | None:
    public = ctx.settings.public_url
    return None if public is None else live_url(public, manifest.model, manifest.version)


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
    return read_card(ctx, file)


def read_card(ctx: Context, file: FileEntry) -> str:
    """Return the text of a stored card; raises `StorageUnavailable`."""
    source = ctx.store.source(file.sha256)
    try:
        content = bytearray(source.size)
        source.read_into(0, memoryview(content))
    finally:
        source.close()
    return content.decode()


def render_card(
    manifest: Manifest,
    live: str | None,
    kept: Mapping[str, Any],
    index: list[dict[str, Any]] | None,
) -> str:
    """
    Return the card of a base.

    Args:
        manifest: what it is.
        live: URL where scores are added; null: nobody knows one.
        kept: what programs are told of every base of the line.
        index: its scores; null: there are none yet.
    """
    return _template().render(
        front=card_data.front_matter(manifest, kept, index),
        license=kept.get("license"),
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
