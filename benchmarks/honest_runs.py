"""
Real finetunes, as honest contributors of all kinds would make them.

They come in lines: a line is one model's life, round after round, eight contributions each, all
from the base that the round before has made. Who contributes draws data set, learning rate, number
of examples and of epochs, and whether it learns all weights or an adapter. In every round two train
on the same examples with the same settings and other seeds, and one keeps its data set and settings
over all rounds of the line: the most alike that honest contributions can be.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, log
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.kept import Clock, Kept, key_of
from benchmarks.sent import Sent, fuse_sent
from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.finetune.training import ADAPTER_FOLDER
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.codecs import discover
from coldfusion_shared.weights.layout import SINGLE_FILE
from coldfusion_shared.weights.write import write_body

FULL, LORA = "full", "lora"
# Contributions of a round, and rounds of a line.
ROUND, ROUNDS = 8, 5
# Who of a round keeps its data set and settings; and who does as the one before it does.
REGULAR, TWIN = 0, ROUND - 1

# Most people have few.
EXAMPLES, FEW = (50, 1000), 2.5
RATES = {FULL: (1e-5, 5e-4), LORA: (1e-4, 1e-3)}
EPOCHS = (1, 1, 1, 2, 3)
LENGTHS = (24, 32)
RANKS = (4, 8, 16)
LORA_SHARE, FROZEN_SHARE = 0.3, 0.15
EMBEDDINGS = ("embeddings",)
# A score that nobody reads: what counts here are the weights.
SCORED = 16
METHOD = Recipe(method="norm_clipped_mean")


@dataclass(frozen=True)
class Choice:
    """
    What one honest contributor does.

    Attributes:
        line, round, number: which one it is, each from 0.
        dataset: name of its data set.
        examples: that it trains on.
        sample: seed of which they are.
        settings: of its finetuning.
    """

    line: int
    round: int
    number: int
    dataset: str
    examples: int
    sample: int
    settings: FinetuneSettings

    @property
    def name(self) -> str:
        """A name for files and tables, that no other choice has."""
        return f"{self.line}-{self.round}-{self.number}"

    @property
    def encoding(self) -> str:
        """The form in which it sends its update."""
        return LORA if self.settings.lora else FULL

    def key(self) -> str:
        """Return all that its weights depend on, but the code and what it has by default."""
        settings = self.settings.model_dump(mode="json", exclude_defaults=True)
        return key_of(self.name, self.dataset, self.examples, self.sample, settings)


@dataclass(frozen=True)
class Made:
    """A choice, its update, and the base that it was made from."""

    choice: Choice
    sent: Sent
    base: Path


def choices(names: Sequence[str], count: int, seed: int) -> list[Choice]:
    """Return what the first `count` honest contributors do, of data sets called `names`."""
    found: list[Choice] = []
    for place in range(count):
        line, rest = divmod(place, ROUND * ROUNDS)
        found.append(_choice(names, seed, line, *divmod(rest, ROUND)))
    return found


def _choice(names: Sequence[str], seed: int, line: int, number: int, place: int) -> Choice:
    if place == REGULAR and number:
        return _again(_choice(names, seed, line, 0, place), number, place, seed)
    if place == TWIN:
        return _again(_choice(names, seed, line, number, place - 1), number, place, seed)
    rng = random.Random(f"{seed}/{line}/{number}/{place}")
    form = LORA if rng.random() < LORA_SHARE else FULL
    options: dict[str, Any] = {
        "epochs": rng.choice(EPOCHS),
        "lr": float(f"{_at(rng.random(), *RATES[form]):.2g}"),
        "max_length": rng.choice(LENGTHS),
        "seed": rng.randrange(2**31),
        "early_stopping": False,
    }
    if form == LORA:
        options |= {"lora": True, "lora_rank": rng.choice(RANKS)}
    elif rng.random() < FROZEN_SHARE:
        options |= {"freeze": EMBEDDINGS}
    examples = round(_at(rng.random() ** FEW, *EXAMPLES))
    settings = FinetuneSettings(**options)
    return Choice(line, number, place, rng.choice(names), examples, rng.randrange(2**31), settings)


def _again(choice: Choice, number: int, place: int, seed: int) -> Choice:
    """Return the same choice for another place, with another seed of head and order."""
    other = random.Random(f"{seed}/{choice.line}/{number}/{place}").randrange(2**31)
    settings = choice.settings.model_copy(update={"seed": other})
    return replace(choice, round=number, number=place, settings=settings)


def _at(share: float, least: float, most: float) -> float:
    """Return what lies so far on the way from `least` to `most`, on a scale of logarithms."""
    return exp(log(least) + share * (log(most) - log(least)))


@cache
def data_of(data: Path, name: str) -> TextDataset:
    """Return the data set called `name` in the folder `data`."""
    return load_dataset(str(data / name), task="classification")


def names_in(data: Path) -> list[str]:
    """Return the names of the data sets in the folder `data`."""
    return sorted(path.parent.name for path in data.glob("*/train.*"))


class Runs:
    """The finetunes of a folder; what is there already is not made again."""

    def __init__(self, folder: Path, data: Path, base: Path) -> None:
        """
        Use `folder`.

        Args:
            folder: for updates and bases.
            data: a folder with one folder for each data set.
            base: the pretrained model.
        """
        self.folder, self.data, self.base = folder, data, base
        self.kept = Kept(folder / "finetunes.jsonl")

    def made(self, wanted: Sequence[Choice], clock: Clock | None = None) -> Iterator[Made]:
        """
        Yield every choice of `wanted` with its update.

        Args:
            wanted: whole rounds in their order, but for the last one.
            clock: told of each that is made; null: what is not there yet is left out.
        """
        rounds: dict[tuple[int, int], list[Made]] = {}
        for choice in wanted:
            before = rounds.get((choice.line, choice.round - 1), [])
            if choice.round and len(before) < ROUND:
                continue
            base = self._base(choice.line, choice.round, before)
            sent = Sent(choice.encoding, self.folder / "updates" / choice.name)
            if self.kept.get(choice.key()) is None or not sent.folder.is_dir():
                if clock is None:
                    continue
                self._make(choice, base, sent, clock)
            elif clock is not None:
                clock.skip("finetune")
            made = Made(choice, sent, base)
            rounds.setdefault((choice.line, choice.round), []).append(made)
            yield made

    def _base(self, line: int, number: int, before: Sequence[Made]) -> Path:
        if not number:
            return self.base
        out = self.folder / "bases" / f"{line}-{number}"
        if not out.is_dir():
            fuse_sent({one.choice.name: one.sent for one in before}, before[0].base, out, METHOD)
        return out

    def _make(self, choice: Choice, base: Path, sent: Sent, clock: Clock) -> None:
        dataset = data_of(self.data, choice.dataset).capped(
            train=choice.examples, validation=SCORED, test=SCORED, seed=choice.sample
        )
        with clock.job("finetune", told(choice)):
            result = train(base, dataset, choice.settings, sent)
        self.kept.put(choice.key(), {"name": choice.name, **result})


def train(
    base: Path, dataset: TextDataset, settings: FinetuneSettings, sent: Sent
) -> dict[str, Any]:
    """Finetune `base` as a contributor does, leave what it would send, and tell what it took."""
    sent.folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=sent.folder.parent) as scratch:
        result = finetune(base, dataset, settings, Path(scratch, "finetuned"))
        out = Path(scratch, "sent")
        out.mkdir()
        if sent.encoding == LORA:
            for file in discover()[LORA].files:
                shutil.copyfile(Path(scratch, "finetuned", ADAPTER_FOLDER, file), out / file)
        else:
            with (
                Checkpoint.from_folder(Path(scratch, "finetuned")) as finetuned,
                Checkpoint.from_folder(base) as ours,
            ):
                write_body(finetuned, ours, out / SINGLE_FILE)
        shutil.rmtree(sent.folder, ignore_errors=True)
        out.rename(sent.folder)
    return {"steps": result.steps, "seconds": round(result.seconds, 2)}


def told(choice: Choice) -> str:
    """Return a line about a choice."""
    settings = choice.settings
    how = f"LoRA of rank {settings.rank}" if settings.lora else "full"
    return (
        f"{choice.name}: {choice.dataset}, {how}, lr {settings.learning_rate:g}, "
        f"{choice.examples} examples, {settings.epochs:g} epochs"
    )


def jobs(wanted: Sequence[Choice]) -> Mapping[str, int]:
    """Return how many jobs of each kind `wanted` are, for a clock."""
    return {"finetune": len(wanted)}
