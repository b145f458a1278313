"""A LoRA adapter of peft's, as it was saved: exact, whatever its rank."""

from __future__ import annotations

from collections.abc import Mapping

from coldfusion_shared.errors import MalformedWeights
from coldfusion_shared.weights.checkpoint import ByteSource, StoredTensor
from coldfusion_shared.weights.codecs import encodings
from coldfusion_shared.weights.codecs.encoding import Encoding
from coldfusion_shared.weights.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LoraUpdate,
    open_adapter,
)
from coldfusion_shared.weights.lora.config import MAX_CONFIG_BYTES


@encodings.register("lora")
class Lora(Encoding):
    """Two factors for each matrix; they are never averaged apart."""

    name = "lora"
    files = (ADAPTER_WEIGHTS, ADAPTER_CONFIG)

    def open(
        self, sources: Mapping[str, ByteSource], base: Mapping[str, StoredTensor]
    ) -> LoraUpdate:
        """Return the reader of an adapter; see `Encoding.open`."""
        self.check_files(sources)
        config = sources[ADAPTER_CONFIG]
        if config.size > MAX_CONFIG_BYTES:
            raise MalformedWeights(
                f"{ADAPTER_CONFIG} has {config.size} bytes; {MAX_CONFIG_BYTES} are the most."
            )
        raw = bytearray(config.size)
        config.read_into(0, memoryview(raw))
        return open_adapter(bytes(raw), sources[ADAPTER_WEIGHTS], base)
