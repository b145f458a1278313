"""
Lines of bases, one for each encoding: in a round every data set is finetuned from the line's own
base, the updates are encoded, and their mean makes the next base.

Each finetuning, update, base and score is kept under a key of the contents that it depends on: a
run that was stopped goes on with what lacks, and what several lines share is done once. The code is
not among those contents; with other encodings or another way to finetune, begin a new folder.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.encoding_updates import LORA, difference_share, encode, fuse
from benchmarks.kept import Clock, Kept, key_of
from coldfusion_shared.data import TextDataset, load_dataset
from coldfusion_shared.evaluate.probe import probe
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.weights.digests import file_sha256
from coldfusion_shared.weights.layout import SINGLE_FILE

FULL = "full"
# Kinds of jobs.
FINETUNING, ADAPTING, PROBING = "finetuning", "adapting", "probing"
# Where updates and bases lie, by digests of their keys.
FILES = "files"
# A validation part only chooses the strength of a probe.
VALIDATION_SHARE = 4


@dataclass(frozen=True)
class Settings:
    """
    What to measure.

    Attributes:
        folder: for results, bases and updates under way.
        data: a folder of data sets, one folder each.
        names: of data sets.
        encodings: full among them.
        rounds: of fusing.
        seeds: each has lines of its own, with its own examples, heads and order.
        examples: of the training and of the test part of a data set, at most.
        training: settings of a finetuning, all but seed and learning rate.
        lr: learning rate of all but adapters, which have their usual one; null: the usual one.
    """

    folder: Path
    data: Path
    names: Sequence[str]
    encodings: Sequence[str]
    rounds: int
    seeds: Sequence[int]
    examples: int
    training: Mapping[str, Any]
    lr: float | None

    def jobs(self) -> dict[str, int]:
        """Return how many jobs there are of each kind."""
        lines, adapted = len(self.encodings), LORA in self.encodings
        each = len(self.names) * len(self.seeds)
        later = self.rounds - 1
        return {
            # Those from the pretrained model are shared, and are its score as well.
            FINETUNING: each * (2 + later * (lines - adapted) + lines),
            ADAPTING: each * self.rounds * adapted,
            PROBING: each * (1 + self.rounds * lines),
        }


@dataclass(frozen=True)
class Base:
    """A base's folder, and the SHA-256 of its weights."""

    folder: Path
    digest: str


@dataclass
class Line:
    """
    What one encoding has come to with one seed; scores are means over data sets, in percent.

    Attributes:
        updates: what `encode` has told, of all rounds and data sets.
        differences: bytes by which each base differs from the one before, by those of the whole
            file: what somebody downloads who has the one before.
        frozen: scores of the linear probe, after each round.
        finetuned: score of finetuning all weights of the last base.
    """

    updates: list[dict[str, Any]] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)
    frozen: list[float] = field(default_factory=list)
    finetuned: float = 0.0


class Lines:
    """The lines of one seed."""

    def __init__(self, settings: Settings, seed: int, kept: Kept, clock: Clock) -> None:
        """Read the data sets."""
        self.settings, self.seed, self.kept, self.clock = settings, seed, kept, clock
        self.datasets = {name: self._dataset(name) for name in settings.names}
        ours = {**settings.training, "seed": seed, "early_stopping": False}
        self.whole = FinetuneSettings(**ours, lr=settings.lr)
        self.adapted = FinetuneSettings(**ours, lora=True)

    def run(self, pretrained: Path) -> tuple[Line, dict[str, Line]]:
        """Return the scores of `pretrained`, and all encodings' lines."""
        start = Base(pretrained, file_sha256(pretrained / SINGLE_FILE))
        before = Line(frozen=[self._frozen(start)])
        lines = {name: Line() for name in self.settings.encodings}
        bases = dict.fromkeys(lines, start)
        for _ in range(self.settings.rounds):
            self._contribute(bases)
            for name, line in lines.items():
                line.updates += [
                    self._update(name, bases[name], dataset) for dataset in self.datasets.values()
                ]
                before_it, bases[name] = bases[name], self._fused(name, bases[name])
                line.differences.append(self._difference(before_it, bases[name]))
                line.frozen.append(self._frozen(bases[name]))
        before.finetuned = self._finetuned(start)
        for name, line in lines.items():
            line.finetuned = self._finetuned(bases[name])
        return before, lines

    def _dataset(self, name: str) -> TextDataset:
        most = self.settings.examples
        found = load_dataset(str(self.settings.data / name), task="classification")
        return found.capped(
            train=most, validation=max(1, most // VALIDATION_SHARE), test=most, seed=self.seed
        )

    def _contribute(self, bases: Mapping[str, Base]) -> None:
        """Finetune and encode for all lines; those of one base share its finetunings."""
        sharing: dict[tuple[Base, bool], list[str]] = {}
        for name, base in bases.items():
            sharing.setdefault((base, name == LORA), []).append(name)
        for (base, adapts), names in sharing.items():
            for name, dataset in self.datasets.items():
                self._finetune(base, name, dataset, names, adapts=adapts)

    def _finetune(
        self,
        base: Base,
        name: str,
        dataset: TextDataset,
        encodings: Sequence[str] = (),
        *,
        adapts: bool = False,
    ) -> float:
        """Return the score on `dataset`, and leave the update in all `encodings` behind."""
        settings = self.adapted if adapts else self.whole
        kind = ADAPTING if adapts else FINETUNING
        key = key_of(FINETUNING, base.digest, dataset.digest, settings.model_dump())
        known = self.kept.get(key)
        wanted = [encoding for encoding in encodings if self._lacks(encoding, base, dataset)]
        if known and not wanted:
            self.clock.skip(kind)
            return float(known["score"])
        with (
            self.clock.job(kind, f"{name} from {base.digest[:8]}, seed {self.seed}"),
            TemporaryDirectory(dir=self.settings.folder) as scratch,
        ):
            out = Path(scratch, "finetuned")
            result = finetune(base.folder, dataset, settings, out)
            for encoding in wanted:
                key_of_update = self._update_key(encoding, base, dataset)
                told = encode(encoding, out, base.folder, self._place(key_of_update))
                self.kept.put(key_of_update, told)
        if not known:
            self.kept.put(key, {"score": result.test, "steps": result.steps})
        return result.test

    def _lacks(self, encoding: str, base: Base, dataset: TextDataset) -> bool:
        """Return whether an update is still needed: its files are removed once it is fused."""
        key = self._update_key(encoding, base, dataset)
        there = self.kept.get(key) is not None and self._place(key).is_dir()
        return not there and not self._is_fused(encoding, base)

    def _update(self, encoding: str, base: Base, dataset: TextDataset) -> dict[str, Any]:
        told = self.kept.get(self._update_key(encoding, base, dataset))
        assert told is not None, "it was encoded before"
        return told

    def _fused(self, encoding: str, base: Base) -> Base:
        key = self._base_key(encoding, base)
        out = self._place(key)
        if not self._is_fused(encoding, base):
            updates = {
                name: self._place(self._update_key(encoding, base, dataset))
                for name, dataset in self.datasets.items()
            }
            shutil.rmtree(out, ignore_errors=True)
            fuse(encoding, updates, base.folder, out)
            self.kept.put(key, {"digest": file_sha256(out / SINGLE_FILE)})
            for folder in updates.values():
                shutil.rmtree(folder)
        known = self.kept.get(key)
        assert known is not None
        return Base(out, known["digest"])

    def _is_fused(self, encoding: str, base: Base) -> bool:
        key = self._base_key(encoding, base)
        return self.kept.get(key) is not None and self._place(key).is_dir()

    def _difference(self, old: Base, new: Base) -> float:
        key = key_of("difference", old.digest, new.digest)
        known = self.kept.get(key)
        if known is None:
            known = {"share": difference_share(old.folder, new.folder)}
            self.kept.put(key, known)
        return float(known["share"])

    def _frozen(self, base: Base) -> float:
        return fmean(self._probed(base, name, one) for name, one in self.datasets.items())

    def _probed(self, base: Base, name: str, dataset: TextDataset) -> float:
        length = self.whole.max_length
        key = key_of(PROBING, base.digest, dataset.digest, length, self.seed)
        known = self.kept.get(key)
        if known:
            self.clock.skip(PROBING)
            return float(known["score"])
        with self.clock.job(PROBING, f"{name} on {base.digest[:8]}, seed {self.seed}"):
            result = probe(base.folder, dataset, max_length=length)
        self.kept.put(key, {"score": result.accuracy})
        return result.accuracy

    def _finetuned(self, base: Base) -> float:
        return fmean(self._finetune(base, name, one) for name, one in self.datasets.items())

    def _update_key(self, encoding: str, base: Base, dataset: TextDataset) -> str:
        return key_of("update", encoding, base.digest, dataset.digest, self._learning(encoding))

    def _base_key(self, encoding: str, base: Base) -> str:
        digests = [dataset.digest for dataset in self.datasets.values()]
        return key_of("base", encoding, base.digest, digests, self._learning(encoding))

    def _learning(self, encoding: str) -> dict[str, Any]:
        return (self.adapted if encoding == LORA else self.whole).model_dump()

    def _place(self, key: str) -> Path:
        """Return the folder of the update or base that has the key `key`."""
        return self.settings.folder / FILES / hashlib.sha256(key.encode()).hexdigest()[:24]
