"""One round of eight, some of them attackers, fused by every method; each result is kept."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.attack_scores import Backdoor, poisoned, randomly_labelled, score
from benchmarks.attackers import ATTACKS, HONEST, RANDOM_LABELS, TRIGGER, Attack, Room
from benchmarks.honest_runs import FULL, ROUND, data_of, train
from benchmarks.kept import Clock, Kept, key_of
from benchmarks.screened import Alarms, Seen, judged, see, seen_before, sticking_out
from benchmarks.sent import Sent, fuse_sent
from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import NonFiniteWeights
from coldfusion_shared.finetune import FinetuneSettings
from coldfusion_shared.schemas.recipes import Recipe

METHODS = (
    "mean",
    "norm_clipped_mean",
    "median",
    "trimmed_mean",
    "multi_krum",
    "geometric_median",
    "centered_clipping",
)
# What all of the round learn from, two each; and what the bases are scored on.
TASKS = ("tweet_ev_emotion", "isear", "tweet_ev_offensive", "tweet_ev_sentiment")
BACKDOOR = Backdoor("tweet_ev_emotion", 1)
TRAINING, SCORING = "training", "scoring"
# The rounds that the model had before: the first of the lines of `honest`.
EARLIER = r"0-\d+-\d+"


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    Attributes:
        folder: for updates and results.
        data: a folder with one folder for each data set.
        base: the pretrained model.
        attacks: names of them.
        counts: of attackers among the eight.
        methods: of fusing.
        seed: of examples, heads, order and draws.
        examples: of each task that a base is scored on.
        history: the measures that `honest` keeps, of which one line is the model's earlier rounds.
    """

    folder: Path
    data: Path
    base: Path
    attacks: Sequence[str]
    counts: Sequence[int]
    methods: Sequence[str]
    seed: int
    examples: int
    history: Path

    def finetuning(self, seed: int) -> FinetuneSettings:
        """Return how everybody of the round trains."""
        return FinetuneSettings(
            epochs=2, lr=2e-4, max_length=32, seed=seed, early_stopping=False, batch_size=16
        )


EXAMPLES = 320


@dataclass(frozen=True)
class Cell:
    """
    One round's outcome.

    Attributes:
        right: by task, which of its examples are read right, a digit each; empty: there is no base,
            or no use in it.
        backdoor: percent of triggered texts that get the target label; null as above.
    """

    right: Mapping[str, str]
    backdoor: float | None

    @property
    def accuracy(self) -> float | None:
        """Mean over the tasks, in percent; null: there is no base, or no use in it."""
        if not self.right:
            return None
        return 100.0 * float(np.mean([np.mean(hits) for hits in self._hits().values()]))

    def loss(self, free: Cell) -> tuple[float, float] | None:
        """
        Return how many points of accuracy it has less than `free`, and the standard error of that.

        The error is that of drawing the examples, which both are scored on; null: one is no use.
        """
        if not self.right or not free.right:
            return None
        ours, theirs = self._hits(), free._hits()
        lost = [100.0 * (theirs[name] - ours[name]) for name in ours]
        errors = [one.var(ddof=1) / one.size for one in lost]
        return float(np.mean([one.mean() for one in lost])), float(np.sqrt(sum(errors))) / len(lost)

    def _hits(self) -> dict[str, npt.NDArray[np.float64]]:
        return {name: np.array([*map(float, text)]) for name, text in self.right.items()}


class Rounds:
    """The rounds of a folder; what is there already is not computed again."""

    def __init__(self, settings: Settings) -> None:
        """Read the data and see what is there."""
        self.settings = settings
        settings.folder.mkdir(parents=True, exist_ok=True)
        self.kept = Kept(settings.folder / "attacks.jsonl")
        self.clock = Clock(self._jobs())
        self.measured = Kept(settings.folder / "measures.jsonl")
        self.before = seen_before(Kept(settings.history), EARLIER)
        self._ways: dict[str, tuple[Attack, int, int]] = {}
        self._room: Room | None = None
        self._data: dict[str, TextDataset] = {}

    def _jobs(self) -> dict[str, int]:
        settings = self.settings
        poisonings = {ATTACKS[name].trained for name in settings.attacks} - {HONEST}
        worst = max(settings.counts, default=0)
        cells = 1 + len(settings.counts) * (len(settings.attacks) + 1)
        return {
            TRAINING: ROUND + worst * len(poisonings),
            SCORING: cells * len(settings.methods),
        }

    def honest(self) -> dict[str, Sent]:
        """Return the eight honest contributions, made where they lack."""
        return {f"h{place}": self._trained(HONEST, place) for place in range(ROUND)}

    def round_of(self, attack: Attack, count: int) -> dict[str, Sent]:
        """Return a round in which the last `count` of eight are attackers, not made yet."""
        honest = self.honest()
        staying = dict(list(honest.items())[: ROUND - count])
        attackers = {}
        for number in range(count):
            name = f"{attack.name}, {number + 1} of {count}"
            out = self.settings.folder / "attackers" / name.replace(" ", "-").replace(",", "")
            attackers[name] = Sent(FULL, out)
            self._ways[name] = (attack, count, number)
        return {**staying, **attackers}

    def _require(self, members: Mapping[str, Sent]) -> None:
        """Make the attackers' files that are not there."""
        for who, sent in members.items():
            if who in self._ways and not sent.folder.is_dir():
                self._craft(sent.folder, *self._ways[who])

    def _craft(self, out: Path, attack: Attack, count: int, number: int) -> None:
        place = ROUND - count + number
        own = self._trained(attack.trained, place)
        partial = out.with_name(f".{out.name}")
        shutil.rmtree(partial, ignore_errors=True)
        self.room().write(attack, own, ROUND - count, self._seed(place), partial)
        partial.rename(out)

    def forget(self, members: Mapping[str, Sent]) -> None:
        """Remove attackers' files, which are large and soon made again."""
        for one in members.values():
            if one.folder.parent.name == "attackers":
                shutil.rmtree(one.folder, ignore_errors=True)

    def judged(self, members: Mapping[str, Sent], *, first: bool) -> tuple[Alarms, Alarms]:
        """
        Return whom the screening's defaults keep out and by which checks, by when the round closes.

        They arrive in an order drawn by lot.

        Args:
            members: of the round.
            first: whether it is the model's first round.

        Returns:
            all that are found, on arrival and when the round is looked at once more; and those that
            are found on arrival alone.
        """
        arriving = [self._seen(who, members[who]) for who in members]
        random.Random(self.settings.seed).shuffle(arriving)
        before = [] if first else self.before
        early = judged(arriving, before, {})
        inside = [one for one in arriving if not early[one.name]]
        return {**early, **sticking_out(inside, before, {})}, early

    def _seen(self, who: str, sent: Sent) -> Seen:
        key = key_of(who, self.settings.seed)
        if self.measured.get(key) is None:
            self._require({who: sent})
        return see(self.measured, key, sent, self.settings.base, who, who, 0)

    def room(self) -> Room:
        """Return the round's honest updates, read once."""
        if self._room is None:
            self._room = Room(self.settings.base, self.honest())
        return self._room

    def outcome(self, method: str, members: Mapping[str, Sent]) -> Cell:
        """Return what a method makes of contributions; of none, the base stays."""
        key = self._key(method, list(members))
        found = self.kept.get(key)
        if found is None:
            self._require(members)
            with self.clock.job(SCORING, f"{method} of {', '.join(members) or 'nobody'}"):
                found = self._scored(method, members)
            self.kept.put(key, found)
        else:
            self.clock.skip(SCORING)
        return Cell(found["right"], found["backdoor"])

    def _key(self, method: str, names: Sequence[str]) -> str:
        settings = self.settings
        drawn = [settings.seed, settings.examples]
        return key_of(method if names else "base", sorted(names), drawn)

    def _scored(self, method: str, members: Mapping[str, Sent]) -> dict[str, Any]:
        nothing: dict[str, Any] = {"right": {}, "backdoor": None}
        with TemporaryDirectory(dir=self.settings.folder) as scratch:
            folder = self.settings.base
            if members:
                folder = Path(scratch, "fused")
                try:
                    fuse_sent(members, self.settings.base, folder, Recipe(method=method))
                except NonFiniteWeights as error:
                    return {**nothing, "why": error.message}
            scores = score(folder, self._datasets(), BACKDOOR, 32)
        if scores is None:
            return {**nothing, "why": "its features are no numbers"}
        return {"right": dict(scores.right), "backdoor": scores.backdoor}

    def _datasets(self) -> dict[str, TextDataset]:
        settings = self.settings
        if not self._data:
            self._data = {
                name: data_of(settings.data, name).capped(
                    train=1, validation=1, test=settings.examples, seed=settings.seed
                )
                for name in TASKS
            }
        return self._data

    def _trained(self, kind: str, place: int) -> Sent:
        """Return the update of the one at `place`, trained on honest or other examples."""
        name = f"{kind.replace(' ', '-')}-{place}"
        sent = Sent(FULL, self.settings.folder / "trained" / name)
        if sent.folder.is_dir():
            return sent
        seed = self._seed(place)
        task = BACKDOOR.dataset if kind == TRIGGER else TASKS[place % len(TASKS)]
        dataset = data_of(self.settings.data, task).capped(
            train=EXAMPLES, validation=16, test=16, seed=seed
        )
        if kind == RANDOM_LABELS:
            dataset = randomly_labelled(dataset, seed)
        elif kind == TRIGGER:
            dataset = poisoned(dataset, BACKDOOR, seed)
        with self.clock.job(TRAINING, f"{name}: {task}"):
            train(self.settings.base, dataset, self.settings.finetuning(seed), sent)
        return sent

    def _seed(self, place: int) -> int:
        return 100 * self.settings.seed + place
