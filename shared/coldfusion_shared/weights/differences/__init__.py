"""
Differences: a new version of a weights file by what it differs in from the old one. Exact.

Who has the old file and the difference gets the new one, byte by byte. Any two files have one; it
is small where both are safetensors and their tensors, of the same names and dtypes, moved little.

The format, all of it little-endian
-----------------------------------
First 88 bytes::

    magic     6 bytes   CFDIFF
    version   U16       1
    old size  U64       bytes
    new size  U64       bytes
    old       32 bytes  its SHA-256
    new       32 bytes  its SHA-256

Then blocks, which make the new file from its first byte to its last. After the block that
completes it the difference ends. Each has a head of 17 bytes, and what the head says of payload::

    kind     U8
    bytes    U32  how many of the new file it makes, n: 1 to 2^20
    payload  U32  bytes, c
    from     U64  where in the old file the n bytes begin that it builds on; 0 where on none

==== ===== ============== ======================================================================
kind name  payload        what it makes
==== ===== ============== ======================================================================
0    COPY  none           the old bytes
1    RAW   c = n          the payload
2    ZSTD  frame, c < n   the content of the frame
3    BYTES frame, c < n   old bytes + content, each byte by itself modulo 256
4    F64   frame, c < n   the old values, moved by the content, as said below
5    F32   the same       the same
6    F16   the same       the same
7    BF16  the same       the same
==== ===== ============== ======================================================================

A frame is one zstd frame (RFC 8878). Its header says the size of its content, which is n; its
window is no larger than that (or 1 KiB), and it needs no dictionary.

How floats move
---------------
With w the bytes of a value, b = 8w bits, and u the bits of a value as an unsigned integer: where
the highest bit is set, all others are flipped. Then integers with a sign, of b bits, are in the
order of the values, and neighbours are neighbours; the same flips lead back. Zero, infinity and
NaN are nothing special. A block has n / w values. It moves each by
``d = ordered(new) - ordered(old)`` modulo 2^b, which is small where the value moved little. Sent is
``e = d + 0x80...80``, 128 in each byte, modulo 2^b: so a small d, whatever its sign, has the byte
128 in all places but the last ones.

How far a value moves, in steps of its last bit, depends on its size. So the values of a block are
put into the order of the old values' exponents, which the receiver knows, too: stably, by the low
8 bits of ``old bits >> s``, with s = 52, 23, 10 and 7 for F64, F32, F16 and BF16. The content is
then the last byte of each e in that order, then the second last of each, and so on, w planes of
n / w bytes.

The sender chooses how blocks are cut, what they build on, their kinds, and the blocks inside of a
frame. Here the same two files give the same difference with the same versions of zstd and numpy,
whatever the machine and the number of threads.
"""
