"""What the wire takes and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.common import check_file_path, check_model_name
from coldfusion_shared.schemas.contributions import Declaration, Work
from coldfusion_shared.schemas.evaluations import EvaluationReport
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.recipes import Recipe

DIGEST = "0" * 64


@pytest.mark.parametrize("name", ["a/b", "demo/minilm", "A-1/b_2.c", "_x/y-", "a/" + "b" * 94])
def test_model_names_of_the_hub_are_taken(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "a/", "/b", "a/b/c", "a//b", "../b", "a/..", "a/b..c", "a--b/c", "a/b.git", "a b/c",
     "a/b\n", "\na/b", "a/b\0", "ä/b", "a/b?", "a/%2e", "-a/b", "a/.b", "a/b.", "a/" + "b" * 95,
     "a\\b", "a/b#c"],
)  # fmt: skip
def test_other_model_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        check_model_name(name)


@pytest.mark.parametrize("path", ["config.json", "a/b/c/d.txt", "x" * 100])
def test_plain_paths_are_taken(path: str) -> None:
    assert check_file_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".git/config", "a\\b", "a\0", "a\n", "a b",
     "a/b/c/d/e", "C:x", "x" * 201, "ä", "a/.b"],
)  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError):
        check_file_path(path)


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_a_digest_is_64_lower_case_digits(digest: str) -> None:
    with pytest.raises(ValidationError):
        FileEntry(path="model.safetensors", size=1, sha256=digest)


@pytest.mark.parametrize("size", [-1, 2**50 + 1, 1.5, "x", None])
def test_sizes_are_bytes_in_range(size: Any) -> None:
    with pytest.raises(ValidationError):
        FileEntry(path="model.safetensors", size=size, sha256=DIGEST)


@pytest.mark.parametrize("base", ["latest", "v", "v01", "v-1", "v1\n", "1", "v1234567890", "V1"])
def test_a_declaration_names_a_plain_version(base: str) -> None:
    file = FileEntry(path="model.safetensors", size=1, sha256=DIGEST)
    Declaration(base="v1", files=[file])
    with pytest.raises(ValidationError):
        Declaration(base=base, files=[file])


@pytest.mark.parametrize(
    "work",
    [{"unknown": 1}, {"examples": -1}, {"score_before": float("nan")},
     {"score_after": float("inf")}, {"task": "x" * 501}, {"languages": ["x"] * 51},
     {"settings": {str(i): i for i in range(51)}},
     {"settings": {"a": []}}, {"settings": {"x" * 101: 1}}],
)  # fmt: skip
def test_what_is_said_of_the_work_is_bounded(work: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Work.model_validate(work)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 1e308, -1e308, "x", None])
def test_scores_are_percent(score: Any) -> None:
    with pytest.raises(ValidationError):
        EvaluationReport.model_validate(
            {"suite": "s", "protocol": "frozen", "scores": {"a": score, "b": score}}
        )


@pytest.mark.parametrize("scores", [{}, {"": 1.0}, {str(i): 1.0 for i in range(201)}])
def test_scores_are_named_and_not_endless(scores: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        EvaluationReport(suite="s", protocol="frozen", scores=scores)


@pytest.mark.parametrize(
    "policy",
    [{"min_contributions": 0}, {"min_contributions": 3, "max_contributions": 2},
     {"deadline_seconds": 0}, {"deadline_seconds": 10**9}, {"mehtod": "mean"}],
)  # fmt: skip
def test_impossible_policies_are_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate(policy)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "model": "a/b",
        "version": "v0",
        "created_at": datetime(2026, 1, 1, 12, 0, 0, 123456, UTC),
        "files": [FileEntry(path="config.json", size=2, sha256=DIGEST)],
        "parent": None,
        "round": None,
        "source": "Kölner Modell",
        "software": "coldfusion 0",
    }
    return Manifest(**{**values, **changes})


def test_a_manifest_read_again_has_the_same_bytes_and_digest() -> None:
    first = manifest()
    again = Manifest.model_validate_json(first.canonical())
    assert again.canonical() == first.canonical()
    assert again.digest() == first.digest()
    # As a client sees it: inside another JSON document, with other spaces.
    other = Manifest.model_validate(json.loads(json.dumps(first.model_dump(mode="json"), indent=3)))
    assert other.digest() == first.digest()


def test_every_field_of_a_manifest_counts_for_its_digest() -> None:
    changed: list[dict[str, Any]] = [
        {"model": "a/c"}, {"version": "v1"}, {"files": []}, {"round": 1}, {"recipe": Recipe()},
        {"server_lr": 2.0}, {"optimizer_steps": 1},
        {"master": [FileEntry(path="m", size=1, sha256="0" * 64)]},
        {"source": "elsewhere"}, {"software": "x"},
        {"created_at": datetime(2026, 1, 2, tzinfo=UTC)},
    ]  # fmt: skip
    digests = {manifest(**change).digest() for change in [{}, *changed]}
    assert len(digests) == len(changed) + 1
