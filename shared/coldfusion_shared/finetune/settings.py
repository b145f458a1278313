"""How to finetune. Importable without torch, so that a command line can show it at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Precision = Literal["auto", "fp32", "bf16", "fp16"]

FULL_LR = 5e-5
# Factors begin at zero: with the demo's encoder on 250 examples (cb, 4 epochs) 2e-4 learns nothing
# yet, and from 5e-4 on an adapter scores what a full finetuning does.
LORA_LR = 5e-4
RANK, ALPHA = 8, 16
ALL_LINEAR = "all-linear"
# What says how an adapter is learnt, and does nothing without one.
OF_LORA = ("lora_rank", "lora_alpha", "lora_targets", "rslora", "dora")
# Of DP-SGD: what is often called meaningful for finetuning, and a length below most gradients'.
EPSILON, CLIP = 8.0, 1.0
# What says how examples are kept apart, and does nothing without it.
OF_DP = ("dp_epsilon", "dp_noise", "dp_delta", "dp_clip")
# What goes with DP-SGD but not as it is by default.
_NOT_WITH_DP = {"early_stopping": False, "group_by_length": False}
# Of targets and of what is frozen; patterns say more with less.
MOST_NAMES, MOST_LETTERS = 500, 300


class FinetuneSettings(BaseModel):
    """What a contributor can choose; the defaults are the paper's, but for smaller data sets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=4.0, description="passes over the training examples"
    )
    lr: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="learning rate after a tenth of the steps; from there it falls to 0. By "
        f"default {FULL_LR:.0e}, with LoRA {LORA_LR:.0e}",
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
    lora: bool = Field(
        default=False,
        description="learn a LoRA adapter of the body instead of its weights: far less to send",
    )
    lora_rank: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="rank of the adapter's matrices; more learns more and sends more. By default "
        f"{RANK}",
    )
    lora_alpha: Annotated[int, Field(ge=1, le=2**20)] | None = Field(
        default=None, description=f"the adapter counts alpha / rank times. By default {ALPHA}"
    )
    lora_targets: tuple[str, ...] | None = Field(
        default=None,
        description="modules that are adapted, by the ends of their names, separated by commas. "
        f"By default {ALL_LINEAR}: every linear layer of the body",
    )
    rslora: bool = Field(
        default=False, description="let the adapter count alpha / sqrt(rank) times, for high ranks"
    )
    dora: bool = Field(
        default=False,
        description="learn the length of each output's weights apart from their direction: a "
        "little better at low ranks, and slower",
    )
    freeze: tuple[str, ...] | None = Field(
        default=None,
        description="tensors or modules of the body that stay as they are, such as embeddings or "
        "'encoder.layer.[0-5]', separated by commas",
    )

    dp: bool = Field(
        default=False,
        description="learn by DP-SGD: bound what any one example adds, and add noise, so that the "
        "weights tell little of single examples. It costs accuracy",
    )
    dp_epsilon: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="what the weights may tell of one example, at most: the noise is chosen by "
        f"it. By default {EPSILON:g}",
    )
    dp_noise: Annotated[float, Field(ge=0.01, le=1000, allow_inf_nan=False)] | None = Field(
        default=None,
        description="the noise itself in place of an epsilon: its standard deviation, in multiples "
        "of the clip",
    )
    dp_delta: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="chance with which epsilon may not hold; less than 1 / training examples. By "
        "default a tenth of that",
    )
    dp_clip: Annotated[float, Field(ge=1e-6, le=1e6)] | None = Field(
        default=None,
        description=f"length that an example's gradient is clipped to. By default {CLIP:g}",
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_for_dp(cls, given: Any) -> Any:
        """Leave out what does not go with DP-SGD where nobody has asked for it."""
        if isinstance(given, dict) and given.get("dp") is True:
            return {**_NOT_WITH_DP, **given}
        return given

    @field_validator("lora_targets", "freeze", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Take what a command line gives: names separated by commas."""
        if isinstance(value, str):
            return tuple(name for name in (part.strip() for part in value.split(",")) if name)
        return value

    @field_validator("lora_targets", "freeze")
    @classmethod
    def _check_names(
        cls, names: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        targets = info.field_name == "lora_targets"
        if names is not None and not (names and all(names)):
            raise ValueError("a name is empty")
        if names is not None and (len(names) > MOST_NAMES or max(map(len, names)) > MOST_LETTERS):
            raise ValueError(f"at most {MOST_NAMES} names of {MOST_LETTERS} letters are taken")
        if targets and names and ALL_LINEAR in names and len(names) > 1:
            raise ValueError(f"{ALL_LINEAR} stands for all names and goes with no other")
        return names

    @field_validator(*OF_LORA)
    @classmethod
    def _check_lora(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what would do nothing; only what was given comes here."""
        if value not in (None, False) and not info.data.get("lora"):
            raise ValueError("it does nothing without lora")
        return value

    @field_validator("dp")
    @classmethod
    def _check_dp(cls, dp: bool, info: ValidationInfo) -> bool:
        """Refuse what would undo it."""
        if not dp:
            return dp
        if info.data.get("gradient_accumulation", 1) > 1:
            raise ValueError(
                "gradients are not accumulated with it, as it computes one example at a time "
                "anyway: use a larger batch_size"
            )
        if info.data.get("early_stopping"):
            raise ValueError(
                "early_stopping would choose by the validation examples, which it does not protect"
            )
        if info.data.get("group_by_length"):
            raise ValueError("its batches are drawn at random and not grouped by length")
        if info.data.get("precision") == "fp16":
            raise ValueError("it does not compute with fp16: use bf16 or fp32")
        return dp

    @field_validator(*OF_DP)
    @classmethod
    def _check_of_dp(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what would do nothing."""
        # Where `dp` itself was refused it is not there, and that is said.
        if value is not None and info.data.get("dp") is False:
            raise ValueError("it does nothing without dp")
        if value is not None and info.field_name == "dp_noise" and info.data.get("dp_epsilon"):
            raise ValueError("give an epsilon or the noise, not both")
        return value

    @property
    def clip(self) -> float:
        """The length that an example's gradient is clipped to."""
        return self.dp_clip or CLIP

    @property
    def wanted_epsilon(self) -> float:
        """The epsilon that the noise is chosen by, where the noise itself is not given."""
        return self.dp_epsilon or EPSILON

    @property
    def learning_rate(self) -> float:
        """The learning rate that was chosen, or what is usual for this way of learning."""
        return self.lr or (LORA_LR if self.lora else FULL_LR)

    @property
    def rank(self) -> int:
        """The rank of an adapter's matrices."""
        return self.lora_rank or RANK

    @property
    def alpha(self) -> int:
        """What an adapter's product is multiplied by, before it is divided by the rank."""
        return self.lora_alpha or ALPHA

    @property
    def targets(self) -> tuple[str, ...]:
        """The ends of the names of the modules that are adapted, or `ALL_LINEAR`."""
        return self.lora_targets or (ALL_LINEAR,)

    def as_used(self) -> dict[str, Any]:
        """Return all settings for JSON; where nothing was chosen, what is used then."""
        used: dict[str, Any] = {"lr": self.learning_rate}
        if self.lora:
            used |= {"lora_rank": self.rank, "lora_alpha": self.alpha}
            used["lora_targets"] = list(self.targets)
        if self.dp:
            used["dp_clip"] = self.clip
            used["dp_epsilon"] = None if self.dp_noise else self.wanted_epsilon
        return {**self.model_dump(mode="json"), **used}
