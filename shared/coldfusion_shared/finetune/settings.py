"""How to finetune. Importable without torch, so that a command line can show it at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class FinetuneSettings(BaseModel):
    """What a contributor can choose; the defaults are the paper's, but for smaller data sets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=4.0, description="passes over the training examples"
    )
    lr: Annotated[float, Field(gt=0, le=1)] = Field(
        default=5e-5,
        description="learning rate after a tenth of the steps; from there it falls to 0",
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=16, description="examples of a batch, which several GPUs share"
    )
    gradient_accumulation: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=1, description="batches whose gradients are added up to one step"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="keep few intermediate results and compute the others again: much less "
        "memory, about a third more time",
    )
    precision: Precision = Field(
        default="auto",
        description="numbers to compute with: auto, fp32, bf16 or fp16; auto takes bf16 or fp16 "
        "where the machine is quick with it. The weights stay 32 bits wide",
    )
    max_length: Annotated[int, Field(ge=4, le=131_072)] = Field(
        default=128, description="tokens of an example; what is longer is cut"
    )
    group_by_length: bool = Field(
        default=True, description="put examples of like length into a batch: less padding"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        default=13, description="random seed of the head's first weights and of the examples' order"
    )
    max_steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="stop after this many steps, whatever the epochs say"
    )
    early_stopping: bool = Field(
        default=True,
        description="stop after two epochs in a row that gain less than 0.1 points on the "
        "validation part, and keep the best epoch",
    )
