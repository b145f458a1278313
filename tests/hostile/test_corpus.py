"""The corpus: what is bad is found for the right reason, what is good passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.screening import discover
from coldfusion_shared.screening.history import Other, Past
from coldfusion_shared.screening.screen import Encoded, Screening, screen
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from tests.hostile.corpus import BASE, OTHERS, ROUND, Bad, Sent, bad, full, good, honest
from tests.shared.checkpoints import write_file
from tests.shared.weights.test_header import HOSTILE

KEY = bytes(range(32))
# What speaks before a check can, of a contribution that cannot be read.
BEFORE = {"format", "decoding"}
# What screening leaves to an evaluation.
AFTER = {"usefulness"}


class Door:
    """A model that has a round with some contributions, and screens those that come."""

    def __init__(self, folder: Path) -> None:
        """Take honest contributions."""
        self.folder = folder
        self.base = Checkpoint.from_file(write_file(folder / "base.safetensors", BASE))
        self.others: list[Other] = []
        for number in range(OTHERS):
            self._let_in(number, self.screened(full(honest(number))))

    def _let_in(self, number: int, outcome: Screening) -> None:
        assert outcome.verdict == "pass", outcome.findings
        assert outcome.measures is not None
        self.others.append(
            Other(
                id=f"c{number}",
                contributor=f"member {number}",
                round=ROUND,
                base="v2",
                state=ContributionState.ACCEPTED,
                relative_norm=outcome.measures.relative_norm,
                tensor_norms=outcome.measures.tensor_norms,
                digest=outcome.measures.digest,
                sketch=outcome.measures.sketch,
            )
        )

    def screened(
        self, sent: Sent, parameters: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Screening:
        """Screen what was sent."""
        sources = {}
        for place, (name, raw) in enumerate(sent.files.items()):
            (self.folder / f"{place}").write_bytes(raw)
            sources[name] = FileSource(self.folder / f"{place}")
        past = Past(sent.contributor, ROUND, "v2", others=self.others, complete=True)
        given = Encoded(sent.encoding, sources, sent.frozen)
        return screen(given, self.base, past=past, parameters=parameters, key=KEY)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One for all, since screening changes nothing."""
    found = Door(tmp_path_factory.mktemp("door"))
    yield found
    found.base.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bad]:
    return bad(tmp_path_factory.mktemp("bad"))


def test_all_that_is_bad_is_found_for_the_right_reason(door: Door, corpus: dict[str, Bad]) -> None:
    missed = []
    for name, one in corpus.items():
        outcome = door.screened(one.sent, one.parameters)
        found = {finding.check: finding for finding in outcome.findings}
        guilty = found.get(one.check)
        right = (
            guilty is not None and guilty.verdict in one.verdicts and one.words in guilty.message
        )
        told = outcome.hint is not None or outcome.verdict != "reject"
        if not right or not told or outcome.verdict not in ("quarantine", "reject"):
            missed.append((name, outcome.findings))
    assert not missed


def test_all_that_is_good_passes(door: Door, tmp_path: Path) -> None:
    held = {
        name: outcome.findings
        for name, sent in good(tmp_path).items()
        if (outcome := door.screened(sent)).verdict != "pass"
    }
    assert not held


def test_the_corpus_has_something_for_every_check(corpus: dict[str, Bad]) -> None:
    assert {one.check for one in corpus.values()} - BEFORE == set(discover()) - AFTER


@pytest.mark.parametrize("encoding", ["full", "delta", "delta-int8", "lora"])
def test_a_file_that_is_malformed_is_so_in_every_encoding(door: Door, encoding: str) -> None:
    names = {
        "full": ["model.safetensors"],
        "lora": ["adapter_model.safetensors", "adapter_config.json"],
    }.get(encoding, ["update.safetensors"])
    rest = dict.fromkeys(names[1:], b'{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    for name, raw in HOSTILE.items():
        outcome = door.screened(Sent({names[0]: raw, **rest}, encoding))
        assert [one.check for one in outcome.findings] == ["format"], name
        assert outcome.verdict == "reject"
        assert outcome.findings[0].message.isprintable()


def test_what_a_finding_says_can_be_shown_anywhere(door: Door, corpus: dict[str, Bad]) -> None:
    for one in corpus.values():
        for finding in door.screened(one.sent, one.parameters).findings:
            assert finding.message.isprintable()
            assert len(finding.message) < 500
            assert len(finding.tensors) <= 10
