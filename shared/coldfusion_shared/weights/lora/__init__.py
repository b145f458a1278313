"""LoRA adapters as peft saves them, read as updates of a base."""

from coldfusion_shared.weights.lora.config import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from coldfusion_shared.weights.lora.update import LoraUpdate, open_adapter

__all__ = ["ADAPTER_CONFIG", "ADAPTER_WEIGHTS", "LoraUpdate", "open_adapter"]
