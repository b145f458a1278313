"""What an experiment is made of: sizes, rates, recipe. A run's YAML file has all of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from coldfusion_shared.schemas.recipes import Recipe

Count = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[float, Field(gt=0, le=1)]
Rates = Annotated[tuple[Rate, ...], Field(min_length=1, max_length=10)]
Epochs = Annotated[float, Field(gt=0, le=1000)]
Factor = Annotated[float, Field(gt=0, le=100)]
Device = Literal["auto", "cpu", "cuda"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Learning(_Part):
    """How a contributor finetunes, and Multitask learns: the same for both."""

    lr: Rates = Field(
        default=(5e-5, 1e-4, 2e-4),
        description="learning rates; of several, the one that does best on validation parts",
    )
    lora_lr: Rates = Field(default=(5e-4, 1e-3), description="the same of LoRA adapters")
    epochs: Epochs = Field(default=2.0, description="passes over a contribution's examples")
    batch_size: Count = Field(default=16, description="examples of a step")
    max_length: Annotated[int, Field(ge=4, le=4096)] = Field(
        default=64, description="tokens of an example, in learning and in scoring"
    )


class Measuring(_Part):
    """How bases are scored."""

    train: Annotated[int, Field(ge=2)] = Field(
        default=400, description="examples that a probe or a finetuning learns from"
    )
    validation: Annotated[int, Field(ge=2)] = Field(
        default=150, description="examples of a validation part, which rates are chosen by, too"
    )
    test: Annotated[int, Field(ge=2)] = Field(default=400, description="examples that are scored")
    few_shot: Annotated[int, Field(ge=2)] = Field(
        default=100, description="examples that few-shot learns from"
    )
    lr: Rates = Field(
        default=(5e-5, 2e-4), description="learning rates of finetuned scores; chosen as above"
    )
    few_shot_lr: Rates = Field(default=(5e-5, 2e-4), description="the same of few-shot scores")
    epochs: Epochs = Field(default=3.0, description="of a finetuned score")
    few_shot_epochs: Epochs = Field(default=10.0, description="of a few-shot score")
    split: Literal["test", "validation"] = Field(
        default="test",
        description="what bases are scored on; validation where recipes are compared, so that none "
        "is chosen by test examples",
    )
    every: Count = Field(default=1, description="rounds between two frozen scores of a line")
    finetuned_every: Count = Field(
        default=1000,
        description="rounds between two finetuned or few-shot scores; the last round has one",
    )


class Tuning(_Part):
    """What learning rates, and methods that need a score, choose by."""

    datasets: Count = Field(default=3, description="data sets, evenly spaced among the names")
    score_datasets: Count = Field(
        default=100,
        description="data sets whose frozen scores a greedy soup, a line search, and methods that "
        "need a score choose by, at most; a soup of K models asks for 2 K - 1 scores",
    )


class Pretraining(_Part):
    """A small encoder of our own, which has seen nothing but the texts, by hidden words."""

    kind: str = Field(default="bert", description="type of the model, as transformers calls it")
    sizes: dict[str, int] = Field(
        default={}, description="config values that differ from the base's, by transformers' names"
    )
    texts: Count = Field(default=2000, description="texts of each data set's train part at most")
    epochs: Epochs = Field(default=3.0, description="passes over the texts")
    lr: Rate = Field(default=5e-4, description="learning rate")
    batch_size: Count = Field(default=32, description="texts of a step")


class Settings(_Part):
    """Sizes of an experiment; protocols take of it what they need."""

    seeds: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="lines, each with draws of its own"
    )
    first_seed: Annotated[int, Field(ge=0, lt=100)] = Field(
        default=0, description="seed of the first line: so that machines can share the lines"
    )
    rounds: Count = Field(default=5, description="iterations of a line")
    contributors: Count = Field(default=8, description="contributions of a round")
    examples: Count = Field(default=500, description="examples of a contribution at most")
    datasets: tuple[str, ...] | None = Field(
        default=None, description="names of data sets; null: all in the folder"
    )
    only_learnable: bool = Field(
        default=False,
        description="leave out data sets that the pretrained model learns nothing of from a "
        "contribution's examples: its validation score is not above the share of the largest "
        "class by more than chance. Decided once, before the run begins; protocols of a single "
        "data set, or of another base, leave out none",
    )
    recipe: Recipe = Field(default=Recipe(), description="how rounds are fused, unless compared")
    learning: Learning = Learning()
    measuring: Measuring = Measuring()
    tuning: Tuning = Tuning()
    pretraining: Pretraining = Pretraining()
    finetuned: bool = Field(default=True, description="whether bases are finetuned again to score")
    finetuned_datasets: Count = Field(
        default=100, description="data sets of a suite that finetuned scores are of, at most"
    )
    folds: Annotated[int, Field(ge=2, le=100)] = Field(
        default=3, description="unseen: parts of the pool, each unseen once"
    )
    families: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="unseen: data sets that share texts; they are seen or unseen together",
    )
    folds_run: Count = Field(default=3, description="unseen: folds that are run of these")
    few_shot_datasets: Count = Field(
        default=100, description="few-shot: unseen data sets that are scored at most"
    )
    contributor_counts: tuple[Count, ...] = Field(
        default=(2, 4, 8), description="contributors and contributors-single: contributions a round"
    )
    example_counts: tuple[Count, ...] = Field(
        default=(125, 250, 500, 1000), description="data-per-contributor: examples of each"
    )
    shares: tuple[Count, ...] = Field(
        default=(1, 2, 4, 8), description="distribution: contributors that share the examples"
    )
    shared_examples: Count = Field(
        default=4000, description="distribution: examples that they share"
    )
    pool_sizes: tuple[Count, ...] = Field(
        default=(4, 8, 16), description="pool-size: data sets that may take part"
    )
    single: str | None = Field(
        default=None, description="data set of protocols with a single one; null: the largest"
    )
    server_lrs: tuple[Factor, ...] = Field(
        default=(1.0, 2.0, 4.0), description="server-lr: fixed rates, and those of the line search"
    )
    methods: tuple[str, ...] | None = Field(
        default=None, description="methods: their names; null: all that there are"
    )
    optimizers: tuple[str, ...] | None = Field(
        default=None, description="optimizers: their names; null: all that there are"
    )
    encodings: tuple[str, ...] | None = Field(
        default=None, description="encodings: their names; null: all that weights can be sent in"
    )
    delays: tuple[Annotated[int, Field(ge=0, le=100)], ...] = Field(
        default=(1, 2), description="staleness: rounds that half of the contributions are behind"
    )
    attacks: tuple[str, ...] | None = Field(
        default=None, description="attacks: their names; null: all that there are"
    )
    attacked_methods: tuple[str, ...] = Field(
        default=("mean", "norm_clipped_mean", "median", "geometric_median"),
        description="attacks: methods that are attacked",
    )
    other_base: str | None = Field(
        default=None,
        description="other-architecture: folder of another base; null: one of `other_kind` is "
        "pretrained on the texts",
    )
    other_kind: str = Field(default="distilbert", description="other-architecture: its type")
    cache_gb: Annotated[float, Field(gt=0)] = Field(
        default=12.0,
        description="weights that are kept; what was not used for the longest time goes first, and "
        "is made again where it is needed",
    )


class Learnt(_Part):
    """What the pretrained model learns of a data set from a contribution's examples."""

    score: float | None = Field(
        description="validation accuracy in percent; null: all trainings diverged"
    )
    largest: float = Field(description="percent of the validation part that has its largest class")
    p_value: float = Field(description="of such a score by who always says the largest class")
    kept: bool = Field(description="whether the data set is in the run")


class RunFile(_Part):
    """``run.yaml`` of a run: what was asked for, of what, by which code."""

    protocol: str
    preset: str
    base: str = Field(description="folder of the pretrained model")
    base_digest: str = Field(description="SHA-256 of its weights, config and tokenizer")
    data: str = Field(description="folder of the data sets")
    data_digests: dict[str, str] = Field(description="SHA-256 of each data set, by name")
    learnt: dict[str, Learnt] | None = Field(
        default=None, description="of `only_learnable`, by data set; null: not decided yet, or all"
    )
    other_base_digest: str | None = Field(
        default=None, description="the same of the settings' `other_base`; null: there is none"
    )
    code: str = Field(
        description="version of coldfusion, and SHA-256 of the engine's and the experiments' code"
    )
    libraries: str = Field(description="what computes, with versions")
    device: Device = "auto"
    threads: int | None = Field(
        default=None, description="of each process; null: the machine's own, as on a GPU"
    )
    cache: str | None = Field(
        default=None, description="folder of what was made; null: `cache` in the run's own"
    )
    server: str | None = Field(default=None, description="URL of a server that fuses")
    model: str | None = Field(
        default=None, description="of that server: owner/name that its lines' models begin with"
    )
    settings: Settings

    def document(self) -> dict[str, Any]:
        """Return it as YAML is to have it."""
        return self.model_dump(mode="json")
