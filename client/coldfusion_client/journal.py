"""What a contributor's run has done so far, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, Field

from coldfusion_client.submission import IN_SCREENING, TAKEN
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.contributions import Declaration


class PrivacySpent(BaseModel):
    """What a model's weights may tell of any one training example, by DP-SGD's accounting."""

    epsilon: float
    delta: float
    noise: float = Field(description="standard deviation, in multiples of the clip")
    clip: float = Field(description="length that an example's gradient has at most")
    sample_rate: float = Field(description="chance of an example to be in a step")
    steps: int

    def as_settings(self) -> dict[str, float]:
        """Return it as settings of a contribution's work."""
        return {
            "dp_epsilon_spent": self.epsilon,
            "dp_delta": self.delta,
            "dp_noise": self.noise,
            "dp_clip": self.clip,
            "dp_sample_rate": self.sample_rate,
            "dp_steps": self.steps,
        }


class Trained(BaseModel):
    """What came out of finetuning."""

    task: str = Field(description="kind of task")
    metric: str
    score: float = Field(description="on the held-back examples, in percent")
    metrics: dict[str, float] = Field(
        default={},
        description="all scores on the held-back examples by metric; perplexity is in no percent",
    )
    steps: int
    seconds: float
    examples: int = Field(description="that it was trained on")
    privacy: PrivacySpent | None = Field(default=None, description="null: trained without DP-SGD")


class Submission(BaseModel):
    """One contribution of the run's weights."""

    declaration: Declaration = Field(
        description="word for word, because the server knows it again by that"
    )
    asked: str | None = Field(
        default=None, description="the encoding that was asked for, or auto; null: not known"
    )
    contribution: str | None = Field(default=None, description="its id; null: maybe not declared")
    state: ContributionState | None = None

    @property
    def undecided(self) -> bool:
        """Whether its outcome is not known here."""
        return self.state is None or self.state in IN_SCREENING


class Journal(BaseModel):
    """One run: a task, finetuned from one base, and what became of it."""

    format: Literal[1] = 1
    server: str
    model: str
    base: str = Field(description="the version that it is finetuned from")
    dataset: str
    task: str = Field(description="names server, model, data and settings")
    score_before: float | None = None
    trained: Trained | None = Field(default=None, description="null until the model is on disk")
    submissions: list[Submission] = []

    @property
    def undecided(self) -> Submission | None:
        """The submission whose outcome is not known here, if there is one."""
        return next((one for one in self.submissions if one.undecided), None)

    @property
    def taken(self) -> Submission | None:
        """The submission that the Repository took, if it took one."""
        return next((one for one in self.submissions if one.state in TAKEN), None)

    def submission(self, onto: str) -> Submission | None:
        """Return the submission onto the base `onto`, if there is one."""
        return next((one for one in self.submissions if one.declaration.base == onto), None)


def task_key(server: str, model: str, data_digest: str, settings: dict[str, Any]) -> str:
    """Return what names a run apart from its base, 64 hexadecimal digits."""
    return _digest([server, model, data_digest, settings])


def run_key(task: str, base: str) -> str:
    """Return what names a run: its task, and the base that it is finetuned from."""
    return _digest([task, base])


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
