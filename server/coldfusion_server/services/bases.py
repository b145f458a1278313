"""Bases: a folder's files into the store, manifests, reading."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseFileRow, BaseRow, ModelRow
from coldfusion_server.events import outbox
from coldfusion_server.services import head_moves, paging, signing
from coldfusion_server.services.alive import LivelySource
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_file, find_model, manifest_of
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import BadModel, NonFiniteWeights
from coldfusion_shared.schemas.bases import Base, Manifest
from coldfusion_shared.schemas.common import Page, Response
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint, chunks
from coldfusion_shared.weights.codecs import discover
from coldfusion_shared.weights.digests import BLOCK_BYTES
from coldfusion_shared.weights.layout import (
    CONFIG_FILE,
    INDEX_FILE,
    SIDE_FILES,
    SINGLE_FILE,
    weight_files,
)


class _Input(Response):
    id: str
    contributor: str
    weight: float | None = None


class Origin(Response):
    """What a list of bases asks of a manifest: to check all of a thousand inputs takes longer."""

    recipe: Recipe | None = None
    source: str | None = None
    contributions: list[_Input] = []


class OriginOfBase(Response):
    """A base and what it came from."""

    version: str
    digest: str
    current: bool
    created_at: datetime
    manifest: Origin


def store_folder(ctx: Context, folder: Path) -> list[FileEntry]:
    """
    Check the transformers folder `folder` and copy what a base needs of it into the store.

    Raises:
        BadModel: it is no model, or it needs code of its own.
        MalformedWeights, NonFiniteWeights: its weights cannot be used.
    """
    _check_config(folder)
    weights = weight_files(folder)
    with Checkpoint.from_folder(folder) as checkpoint:
        _check_weights(checkpoint)
    # Also for a single shard: transformers finds a file of another name by the index alone.
    sharded = [] if weights == [SINGLE_FILE] else [INDEX_FILE]
    side = [name for name in SIDE_FILES if (folder / name).is_file()]
    return [_store_file(ctx, folder / name, name) for name in [*side, *sharded, *weights]]


def add_base(
    ctx: Context,
    session: Session,
    model: ModelRow,
    manifest: Manifest,
    *,
    kind: str | None = head_moves.PUBLISHED,
) -> BaseRow:
    """
    Add a base, signed, to the caller's transaction and make it the model's head.

    Args:
        ctx: the service's surroundings.
        session: the transaction.
        model: whose base it is.
        manifest: what it is; its version is the next one.
        kind: what moves the head to it; null: the head stays where it is.
    """
    number = int(manifest.version[1:])
    parent = None if manifest.parent is None else int(manifest.parent.version[1:])
    row = BaseRow(
        model_id=model.id,
        number=number,
        parent_number=parent,
        replays_number=None if manifest.replays is None else int(manifest.replays[1:]),
        digest=manifest.digest(),
        manifest=manifest.canonical().decode(),
        created_at=manifest.created_at,
        signature=signing.sign(ctx, manifest),
        distance=0.0 if parent is None else None,
        files=[
            BaseFileRow(path=file.path, size=file.size, sha256=file.sha256)
            for file in manifest.files
        ],
    )
    session.add(row)
    if parent is not None and kind is not None:
        head_moves.move_head(session, manifest.created_at, model, number, kind)
    session.flush()
    data = {"version": manifest.version, "digest": row.digest, "round": manifest.round}
    outbox.append(session, manifest.created_at, "base.published", model.name, data)
    return row


def get_base(ctx: Context, name: str, version: str, principal: Principal | None) -> Base:
    """Return one base; `version` is v<n> or latest."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        return to_schema(model, find_base(session, model, version))


def list_bases(
    ctx: Context, name: str, principal: Principal | None, window: paging.Window
) -> Page[Base]:
    """Return the model's bases, newest first."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(BaseRow).where(BaseRow.model_id == model.id)
        return paging.page(session, query, BaseRow.id, window, lambda row: to_schema(model, row))


def list_origins(
    ctx: Context, name: str, principal: Principal | None, window: paging.Window
) -> Page[OriginOfBase]:
    """Return what the model's bases came from, newest first: all that a list of them shows."""
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(BaseRow).where(BaseRow.model_id == model.id)
        return paging.page(session, query, BaseRow.id, window, lambda row: _origin_of(model, row))


def get_file(
    ctx: Context, name: str, version: str, path: str, principal: Principal | None
) -> FileEntry:
    """Return size and digest of one file of a base."""
    base = get_base(ctx, name, version, principal)
    return find_file(base.manifest, path, f"{name} {base.version}")


def open_weights(ctx: Context, files: Iterable[FileEntry], alive: Callable[[], None]) -> Checkpoint:
    """Open the weights among `files`, those of a base, in the store; reads call `alive`."""
    return Checkpoint(
        {
            file.path: LivelySource(ctx.store.source(file.sha256), alive)
            for file in files
            if file.path.endswith(".safetensors")
        }
    )


class StoredFile(Protocol):
    """A contribution's file, as the database or a manifest has it."""

    @property
    def path(self) -> str:
        """Its name."""

    @property
    def sha256(self) -> str:
        """Its digest."""


def update_sources(
    ctx: Context,
    stack: ExitStack,
    encoding: str,
    files: Iterable[StoredFile],
    alive: Callable[[], None],
) -> dict[str, ByteSource]:
    """
    Open those of a contribution's files that its encoding consists of, until `stack` closes.

    Each read of them calls `alive`.
    """
    names = discover()[encoding].files
    found: dict[str, ByteSource] = {}
    for file in files:
        if file.path in names:
            source = ctx.store.source(file.sha256)
            stack.callback(source.close)
            found[file.path] = LivelySource(source, alive)
    return found


def _origin_of(model: ModelRow, row: BaseRow) -> OriginOfBase:
    return OriginOfBase(
        version=f"v{row.number}",
        digest=row.digest,
        current=row.number == model.current,
        created_at=row.created_at,
        manifest=Origin.model_validate_json(row.manifest),
    )


def to_schema(model: ModelRow, row: BaseRow) -> Base:
    """Return what the API shows of a base."""
    return Base(
        model=model.name,
        version=f"v{row.number}",
        digest=row.digest,
        current=row.number == model.current,
        created_at=row.created_at,
        distance=row.distance,
        manifest=manifest_of(row),
    )


def _check_config(folder: Path) -> None:
    if not folder.is_dir():
        raise BadModel(f"There is no folder {str(folder)!r}.")
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise BadModel(
            f"The folder {str(folder)!r} has no {CONFIG_FILE}.",
            hint="Save the model with model.save_pretrained(folder).",
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise BadModel(f"{file} is not JSON.") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise BadModel(f"{file} names no model_type, so it describes no transformers model.")
    if "auto_map" in config:
        raise BadModel(
            "The model needs Python code of its own (auto_map); that is never run here.",
            hint="Choose a model of an architecture that transformers has built in.",
        )


def _check_weights(checkpoint: Checkpoint) -> None:
    shared = body(checkpoint.spans())
    if not shared:
        raise BadModel("The model has no floating-point tensors outside of heads.")
    for name in shared:
        tensor = checkpoint.tensors[name]
        for start, stop in chunks(tensor.span.elements):
            if not np.isfinite(tensor.values(start, stop)).all():
                raise NonFiniteWeights(f"Tensor {name!r} holds NaN or infinity.", tensors=[name])


def _store_file(ctx: Context, path: Path, name: str) -> FileEntry:
    stored = ctx.store.put(_blocks(path))
    return FileEntry(path=name, size=stored.size, sha256=stored.sha256)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block
