"""How a round's updates become the next base: method, step, optimizer. Names and numbers only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from coldfusion_shared.schemas.common import Request


class Dare(Request):
    """Drop And REscale, in front of any method (https://arxiv.org/abs/2311.03099)."""

    density: Annotated[float, Field(gt=0, le=1)] = Field(
        description="each value of an update is kept with this probability and divided by it"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="of the draws; the same seed drops the same values"
    )


class Recipe(Request):
    """Everything that decides a fuse beside the weights themselves."""

    method: str = Field(default="mean", description="fusion method", examples=["mean"])
    parameters: dict[str, Any] = Field(default={}, description="the method's parameters")
    dare: Dare | None = Field(default=None, description="drop and rescale before the method")
    staleness_exponent: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.5,
        description="an update that was made s rounds ago is multiplied by (1 + s) to the power of "
        "minus this; 0: late updates count in full",
    )
    optimizer: str = Field(default="none", description="server optimizer", examples=["none"])
    optimizer_parameters: dict[str, Any] = Field(
        default={}, description="the server optimizer's parameters"
    )
    server_lr: Annotated[float, Field(gt=0, le=100, strict=True)] | Literal["auto"] | None = Field(
        default=None,
        description="factor of the fused update; auto: the updates' mean norm over the norm of "
        "their mean, at most server_lr_cap; null: the optimizer's default",
    )
    server_lr_cap: Annotated[float, Field(gt=0, le=100)] = Field(
        default=4.0, description="what server_lr auto does not exceed"
    )
    pull: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="the new base is moved by this share of the way back to the pretrained model",
    )
    step_cap: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None,
        description="how far the new base may be from the one before: its step, pull and all, is "
        "scaled down to this share of that one's norm where it is longer; null: any way",
    )
