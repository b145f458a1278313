"""
Verifying: is a base what its manifest says, to the byte, and was it made as its manifest says?

Every file is read and hashed; then the base is fused again from what went into it, and what comes
out is hashed, too, and kept nowhere. Nothing is changed, and no file is ever whole in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import BaseRow, ModelRow
from coldfusion_server.services import replay_course
from coldfusion_server.services.context import Context
from coldfusion_server.services.digesting import DigestSink, object_digest
from coldfusion_server.services.fuse_inputs import Input, of_manifest
from coldfusion_server.services.fusing import Stored, Work, continues, fuse
from coldfusion_server.services.lookup import find_base, find_model, manifest_of
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import BaseNotFound, ColdFusionError, Untrusted
from coldfusion_shared.fusion.views import MASTER, WEIGHTS
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.signing.model_signature import check_base
from coldfusion_shared.weights.layout import is_weights

# Told what is being done to which base, how many bytes of it are done, and how many there are.
Report = Callable[[str, int, int], None]


@dataclass
class Verified:
    """
    What was found of one base.

    Attributes:
        version: the base's.
        files: how many were read: weights, master, optimizer's state, and all others.
        bytes: their size, as the manifest says.
        fused: whether it was fused again, and every file came out the same.
        unfused: why it was not fused again, where that is nobody's fault; null for v0, too.
        signed: whether it has a signature; a wrong one is a fault.
        faults: what is wrong, a sentence each.
    """

    version: str
    files: int = 0
    bytes: int = 0
    fused: bool = False
    unfused: str | None = None
    signed: bool = False
    faults: list[str] = field(default_factory=list)


def verify(
    ctx: Context,
    name: str,
    version: str | None,
    principal: Principal | None,
    report: Report = lambda what, done, total: None,
) -> Iterator[Verified]:
    """
    Verify one base, or all of a model, one after the other.

    Args:
        ctx: the service's surroundings.
        name: the model's.
        version: v<n> or latest; null: all.
        principal: who asks.
        report: told how far it is.

    Raises:
        ModelNotFound, BaseNotFound: there is none.
        StorageUnavailable: the store does not answer.
    """
    with ctx.database.read() as session:
        model = find_model(session, name, principal)
        query = select(BaseRow.number).where(BaseRow.model_id == model.id).order_by(BaseRow.number)
        numbers = list(session.scalars(query))
        if version is not None:
            numbers = [find_base(session, model, version).number]
    run = _Run(ctx, name, principal, report)
    for number in numbers:
        yield run.base(f"v{number}")


class _Run:
    """One command's run: an object that several bases name is read once."""

    def __init__(
        self, ctx: Context, name: str, principal: Principal | None, report: Report
    ) -> None:
        self.ctx, self.name, self.principal, self.report = ctx, name, principal, report
        self._known: dict[str, str | None] = {}

    def base(self, version: str) -> Verified:
        found = Verified(version)
        with self.ctx.database.read() as session:
            model = find_model(session, self.name, self.principal)
            row = find_base(session, model, version)
            found.signed = row.signature is not None
            found.faults += _text_faults(row)
            if found.faults:
                # What it says cannot be held against anything.
                return found
            manifest = manifest_of(row)
            found.faults += self._signature_faults(row, manifest)
            found.faults += _chain_faults(session, model, row, manifest)
            given = _input(session, model, manifest, found)
            gone = replay_course.erased(session, model)
        self._files(found, manifest)
        if given is not None:
            self._fuse_again(found, manifest, given, gone)
        return found

    def _signature_faults(self, row: BaseRow, manifest: Manifest) -> Iterator[str]:
        if row.signature is None:
            return
        try:
            check_base(row.signature, manifest, self.ctx.signing_key.public)
        except Untrusted as error:
            yield error.message

    def _files(self, found: Verified, manifest: Manifest) -> None:
        """Read every stored file of the base."""
        for file in [*manifest.files, *manifest.master, *manifest.optimizer_state]:
            fault = self._fault(f"{found.version} {file.path}", file)
            found.files += 1
            found.bytes += file.size
            if fault is not None:
                found.faults.append(f"{file.path} of {found.version} {fault}.")

    def _fault(self, what: str, file: FileEntry) -> str | None:
        """Return what is wrong with a stored file, null if nothing is."""
        if file.sha256 not in self._known:
            self._known[file.sha256] = self._look(what, file)
        return self._known[file.sha256]

    def _look(self, what: str, file: FileEntry) -> str | None:
        if not self.ctx.store.exists(file.sha256):
            return "is missing in the store"

        def read(done: int) -> None:
            self.ctx.pulse()
            self.report(f"reading {what}", done, file.size)

        size, digest = object_digest(self.ctx, file.sha256, read)
        if (size, digest) == (file.size, file.sha256):
            return None
        return (
            f"was changed in the store: it has {size} bytes and the SHA-256 {digest[:12]}..., not "
            f"{file.size} and {file.sha256[:12]}..."
        )

    def _fuse_again(
        self, found: Verified, manifest: Manifest, given: Input, gone: dict[str, datetime]
    ) -> None:
        lost = [item.id for item in given.contributions if item.id in gone]
        if lost:
            found.unfused = _erased(lost, gone)
            return
        damaged = list(self._damaged_inputs(given))
        if damaged:
            found.faults += damaged
            return
        try:
            stored = self._fused(found.version, given)
        except ColdFusionError as error:
            found.faults.append(f"{found.version} cannot be fused again: {error.message}")
            return
        different = list(_differences(manifest, stored))
        found.faults += different
        found.fused = not different

    def _damaged_inputs(self, given: Input) -> Iterator[str]:
        """Yield what is wrong with what the base was fused from."""
        for item in given.contributions:
            for file in item.files:
                fault = self._fault(f"contribution {item.id}", file)
                if fault is not None:
                    yield f"{file.path} of contribution {item.id} {fault}."
        for owner, file in _base_inputs(given):
            fault = self._fault(f"{owner} {file.path}", file)
            if fault is not None:
                yield f"{file.path} of {owner}, which it was fused from, {fault}."

    def _fused(self, version: str, given: Input) -> Stored:
        def read(done: int, total: int) -> None:
            self.report(f"fusing {version}", done, total)

        (made,) = fuse(self.ctx, given, Work(self.ctx.pulse, read), DigestSink())
        return made.stored


def _text_faults(row: BaseRow) -> Iterator[str]:
    """Yield what is wrong with the manifest before anything of it is believed."""
    digest = hashlib.sha256(row.manifest.encode()).hexdigest()
    if digest != row.digest:
        yield (
            f"The manifest of v{row.number} was changed: its SHA-256 is {digest[:12]}..., not "
            f"{row.digest[:12]}..."
        )
        return
    try:
        manifest_of(row)
    except ValidationError:
        yield f"The manifest of v{row.number} cannot be read."


def _chain_faults(
    session: Session, model: ModelRow, row: BaseRow, manifest: Manifest
) -> Iterator[str]:
    """Yield what does not fit: the manifest, the files listed, the parent's digest."""
    version = f"v{row.number}"
    if (manifest.model, manifest.version) != (model.name, version):
        yield f"The manifest of {version} is that of {manifest.model} {manifest.version}."
    listed = {(file.path, file.size, file.sha256) for file in row.files}
    if listed != {(file.path, file.size, file.sha256) for file in manifest.files}:
        yield f"The files listed for {version} are not those of its manifest."
    parent = None if manifest.parent is None else int(manifest.parent.version[1:])
    if parent != row.parent_number:
        yield f"{version} is said to come from another base than its manifest says."
    if manifest.parent is not None:
        yield from _parent_faults(session, model, version, manifest)


def _parent_faults(
    session: Session, model: ModelRow, version: str, manifest: Manifest
) -> Iterator[str]:
    assert manifest.parent is not None, "v0 has no parent to look at"
    named = manifest.parent
    query = select(BaseRow.digest).where(
        BaseRow.model_id == model.id, BaseRow.number == int(named.version[1:])
    )
    digest = session.scalar(query)
    if digest is None:
        yield f"{named.version}, which {version} was fused onto, is missing."
    elif digest != named.digest:
        yield (
            f"{version} was fused onto a {named.version} with the digest {named.digest[:12]}..., "
            f"but there is one with {digest[:12]}..."
        )


def _input(session: Session, model: ModelRow, manifest: Manifest, found: Verified) -> Input | None:
    """Return what the base is to be fused from again; null where that cannot be known."""
    if manifest.parent is None or manifest.recipe is None:
        return None
    try:
        return of_manifest(session, model, manifest)
    except BaseNotFound as error:
        found.faults.append(f"{found.version} cannot be fused again: {error.message}")
        return None
    except ValidationError:
        found.faults.append(
            f"{found.version} cannot be fused again: the manifest of a base that it was fused from "
            "cannot be read."
        )
        return None


def _base_inputs(given: Input) -> Iterator[tuple[str, FileEntry]]:
    """Yield the files of bases that the fuse reads, and whose they are."""
    read = [*_weights(given.base), *given.base.master]
    if continues(given):
        read += given.base.optimizer_state
    yield from ((given.base.version, file) for file in read)
    origin = [given.origin] if given.recipe.pull else []
    for manifest in [*given.bases.values(), *origin]:
        yield from ((manifest.version, file) for file in _weights(manifest))


def _weights(manifest: Manifest) -> Iterable[FileEntry]:
    return (file for file in manifest.files if is_weights(file.path))


def _erased(lost: list[str], gone: dict[str, datetime]) -> str:
    day = gone[lost[0]].date().isoformat()
    said = f"contribution {lost[0]} was erased on {day}"
    return f"{said}, and {len(lost) - 1} more" if len(lost) > 1 else said


def _differences(manifest: Manifest, stored: Stored) -> Iterator[str]:
    """Yield in what the base and what was fused again differ."""
    views = {
        "weights": (_weights(manifest), stored.get(WEIGHTS, [])),
        "master": (manifest.master, stored.get(MASTER, [])),
        "optimizer's state": (
            manifest.optimizer_state,
            [file for view in stored if view not in (WEIGHTS, MASTER) for file in stored[view]],
        ),
    }
    for view, (written, made) in views.items():
        expected = {file.path: file for file in written}
        for file in made:
            before = expected.pop(file.path, None)
            if before is None:
                yield f"{file.path} ({view}) is fused, and {manifest.version} has no such file."
            elif before != file:
                yield (
                    f"{file.path} ({view}) of {manifest.version} is not what comes out of the "
                    f"fuse: {before.sha256[:12]}... in the manifest, {file.sha256[:12]}... fused "
                    "again."
                )
        for path in expected:
            yield f"{path} ({view}) of {manifest.version} does not come out of the fuse."
