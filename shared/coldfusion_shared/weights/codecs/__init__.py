"""
Encodings: the forms in which an update travels and is kept. One file each, found by `discover`.

The update of a tensor is ``Delta = finetuned - base``, float32, flattened in C order, n values. A
tensor of the base that an encoded update does not have did not change: its update is zero, and all
encodings but full leave out what did not change. Tensors that are not floats are never written.

============== ==================== ==========================================================
name           file                 tensors in it
============== ==================== ==========================================================
full           model.safetensors    NAME: the finetuned weights, in the base's dtype or F32
delta          update.safetensors   NAME: Delta rounded to BF16, in the base's shape
delta-int8     update.safetensors   index:NAME and delta-int8:NAME, see below
delta-sparse   update.safetensors   index:NAME and delta-sparse:NAME
delta-sign     update.safetensors   index:NAME and delta-sign:NAME
lora           adapter_model        as peft saves them, with adapter_config.json beside it
               .safetensors
============== ==================== ==========================================================

Each file is strictly valid safetensors, by `weights.header`. Nothing in its metadata matters: all
that a reader needs follows from the base's names and shapes and from what is said here. Should the
layout of an encoding ever change, the new one gets a new name.

A file of full may be a task's model as transformers saved it: its names may have one leading module
more than the base's, or less (see `weights.body.base_names`), and a head's tensors are passed over.

The three in blocks
-------------------
A tensor is cut into blocks of 2^14 values, of which the last one may be shorter. Block b is one
zstd frame (RFC 8878). ``<encoding>:NAME``, U8, holds the frames one after another;
``index:NAME``, U16, one value for each block, the frames' lengths in bytes. All index tensors come
before all others, so that a reader of a far file gets them at once.

The header of a frame says the size of its content, its window is no larger than that (or 1 KiB),
and it needs no dictionary. A frame of c bytes of content has at most c + c // 256 + 128 bytes.

The rows of a tensor: the shortest run of trailing dimensions with at least 256 values in it is one
row; without such a run the whole tensor is one. Where a block's edges cut a row, each part counts
as a row of its own. So a block of the values from `start` to `stop`, with rows of r values, has
``S = (stop - 1) // r - start // r + 1`` rows, and value i lies in its row ``i // r - start // r``.

With m the number of values of a block, the content of its frame is, all little-endian:

* delta-int8: S scales, F32, then m values q, I8. ``Delta = (q / 127) * scale``, the quotient and
  the product each rounded to float32. q is never -128. An encoder takes the row's largest
  magnitude as scale and rounds ``Delta / scale * 127`` to the nearest integer.
* delta-sparse: S scales, F32, then ceil(m / 8) bytes of which bit i, counted from the highest bit
  of the first byte on, says whether value i is kept, then one q, I8, for each that is kept, in
  their order, as above. What is not kept is zero. An encoder keeps the ceil(density * m) largest
  magnitudes of a block.
* delta-sign: S scales, F32, then ceil(m / 8) bytes of which bit i says whether value i is
  negative: ``Delta = -scale`` where it is set, ``scale`` where not. An encoder takes the sum of
  the row's squares by the sum of its magnitudes, but at most twice their mean; what is exactly
  zero in a row that is not gets a sign by chance, drawn from the block's values.

Scales are finite and at least 0; a row that did not change has scale 0. Bits beyond value m are 0.

The same finetuned weights, base and encoding give the same bytes with the same versions of zstd
and numpy, whatever the machine and the number of threads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from coldfusion_shared.errors import UnknownName
from coldfusion_shared.registry import Registry
from coldfusion_shared.weights.codecs.encoding import Encoding, WeightsEncoding

if TYPE_CHECKING:
    from coldfusion_shared.fusion.updates import SentUpdate
    from coldfusion_shared.weights.checkpoint import ByteSource, StoredTensor

encodings: Registry[type[Encoding]] = Registry("encoding", "coldfusion.encodings")


def discover() -> Registry[type[Encoding]]:
    """Return the registry after importing every encoding."""
    encodings.discover(sys.modules[__name__])
    return encodings


def weights_encoding(name: str) -> WeightsEncoding:
    """Return the encoding called `name`, into which any finetuned model can be brought."""
    found = discover()[name]()
    if not isinstance(found, WeightsEncoding):
        raise UnknownName(f"The encoding {name!r} is not made of a model's weights.")
    return found


def open_update(
    encoding: str, sources: Mapping[str, ByteSource], base: Mapping[str, StoredTensor]
) -> SentUpdate:
    """
    Open an encoded update; what can be checked without decoding it is checked.

    Args:
        encoding: its encoding's name.
        sources: its files by name, as many as the encoding has; several threads may read them.
        base: the tensors that it may have changed, of the base that it was made from.

    Raises:
        UnknownName: there is no such encoding.
        MalformedWeights: the files are not what the encoding says.
        IncompatibleWeights: they are not of this base; the tensors are named.
    """
    return discover()[encoding]().open(sources, base)
