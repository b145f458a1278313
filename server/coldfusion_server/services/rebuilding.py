"""Files put together from the pieces that hf_xet has sent of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from coldfusion_server.services import staging, xorbs
from coldfusion_server.services.context import Context
from coldfusion_server.services.garbage import remove_staged
from coldfusion_server.services.lookup import find_model
from coldfusion_server.services.parts import check_room
from coldfusion_server.services.xet_tokens import Ticket
from coldfusion_server.storage import StoredObject
from coldfusion_server.xet.shard import Segment, ShardFile
from coldfusion_server.xet.xorb import INDEX_BYTES, Index, decode
from coldfusion_shared.errors import (
    AlreadyContributed,
    ColdFusionError,
    InvalidRequest,
    QuotaExceeded,
    TooLarge,
)
from coldfusion_shared.weights.checkpoint import ByteSource
from coldfusion_shared.weights.layout import SINGLE_FILE

# Read, unpacked and written at a time.
BLOCK_BYTES = 2**21
# Of a file: clients make ranges of eight pieces or more, which have 64 KiB each in the mean.
BYTES_PER_SEGMENT = 2**15
FEW_SEGMENTS = 64
# Held open while a file is put together: ranges of one xorb come one soon after the other.
OPEN_XORBS = 8


def rebuild(ctx: Context, ticket: Ticket, files: Sequence[ShardFile]) -> None:
    """
    Put files together, and stage each for a contribution, in order; harmless to repeat.

    Args:
        ctx: the service's surroundings.
        ticket: their sender's.
        files: what they are made of.

    Raises:
        NotFound: a xorb is not here, or is somebody else's.
        InvalidRequest: the pieces do not become what was said of them.
        DigestMismatch: nor does the file.
        TooLarge, QuotaExceeded, AlreadyContributed, StorageFull: it cannot be taken.
    """
    for file in files:
        if len(file.segments) > FEW_SEGMENTS + file.size // BYTES_PER_SEGMENT:
            raise TooLarge(f"{file.size} bytes are made of {len(file.segments)} ranges: too many.")
        check_room(ctx, file.size)
        names = {segment.xorb for segment in file.segments}
        found = xorbs.find(ctx, ticket, names)
        if file.sha256 is None:
            # A few pieces named again and again become more than any disk holds.
            staging.check_announced(ctx, ticket.model, ticket.who, {SINGLE_FILE: file.size})
        elif not _is_wanted(ctx, ticket, file.sha256, file.size):
            xorbs.use(ctx, ticket, file.sha256, names)
            continue
        stored = _store(ctx, file, found)
        try:
            staging.note_stored(ctx, ticket.model, ticket.who, stored.sha256, stored.size)
        except ColdFusionError:
            # Nobody counts it: it would be a way to fill the store.
            remove_staged(ctx, [stored.sha256])
            raise
        xorbs.use(ctx, ticket, stored.sha256, names)


def _is_wanted(ctx: Context, ticket: Ticket, sha256: str, size: int) -> bool:
    """
    Return whether the file is to be put together.

    What may not be staged is left out, and the commit that names it is refused with the reason:
    clients show people nothing of what is answered here.
    """
    wanted = staging.Wanted(sha256, size)
    try:
        with ctx.database.write() as session:
            model = find_model(session, ticket.model, ticket.who)
            staging.check_wanted(ctx, session, model, ticket.who, [wanted])
    except (AlreadyContributed, QuotaExceeded, TooLarge):
        return False
    return True


def _store(ctx: Context, file: ShardFile, found: Mapping[str, tuple[str, int]]) -> StoredObject:
    with closing(_Xorbs(ctx, found)) as opened:
        # Before a byte is stored.
        for segment in file.segments:
            opened.check(segment)
        return ctx.store.put(opened.bytes_of(file.segments), expect=file.sha256)


class _Xorbs:
    """The xorbs of one file, a few of them open at a time."""

    def __init__(self, ctx: Context, found: Mapping[str, tuple[str, int]]) -> None:
        """Open none yet; `found` has digest and number of pieces of each."""
        self._ctx = ctx
        self._found = found
        self._open: OrderedDict[str, tuple[ByteSource, Index]] = OrderedDict()

    def close(self) -> None:
        """Close those that are open."""
        for source, _ in self._open.values():
            source.close()

    def check(self, segment: Segment) -> None:
        """Raise `InvalidRequest` unless the xorb has these pieces, and they become so much."""
        _, index = self._get(segment.xorb)
        if segment.past > len(index.ends):
            raise InvalidRequest(
                f"Of a xorb with {len(index.ends)} pieces those before {segment.past} are named."
            )
        size = index.size(segment.first, segment.past)
        if size != segment.size:
            raise InvalidRequest(
                f"Pieces that become {size} bytes are said to become {segment.size}."
            )

    def bytes_of(self, segments: Iterable[Segment]) -> Iterator[bytes]:
        """Yield what the segments become, a few pieces at a time."""
        for segment in segments:
            source, index = self._get(segment.xorb)
            first = segment.first
            while first < segment.past:
                start = index.starts_at(first)
                past = first + 1
                while past < segment.past and index.ends[past] - start <= BLOCK_BYTES:
                    past += 1
                block = memoryview(bytearray(index.starts_at(past) - start))
                source.read_into(start, block)
                yield b"".join(
                    decode(block[index.starts_at(piece) - start : index.ends[piece] - start])
                    for piece in range(first, past)
                )
                first = past

    def _get(self, name: str) -> tuple[ByteSource, Index]:
        """Return a xorb, opened, and where its pieces are, which stands behind them."""
        if name not in self._open:
            if len(self._open) >= OPEN_XORBS:
                self._open.popitem(last=False)[1][0].close()
            digest, pieces = self._found[name]
            source = self._ctx.store.source(digest)
            raw = bytearray(pieces * INDEX_BYTES)
            source.read_into(source.size - len(raw), memoryview(raw))
            self._open[name] = source, Index.from_bytes(bytes(raw))
        self._open.move_to_end(name)
        return self._open[name]
