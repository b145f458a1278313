"""Finetuning a base on one data set, on transformers."""

from coldfusion_shared.finetune.settings import FinetuneSettings
from coldfusion_shared.finetune.train import FinetuneResult, finetune

__all__ = ["FinetuneResult", "FinetuneSettings", "finetune"]
