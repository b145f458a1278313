"""What status says of one contribution: findings with numbers, decisions, its part in the fuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from coldfusion_client.cli.receipt import receipt_lines
from coldfusion_shared.schemas.contributions import Contribution

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BARE: dict[str, Any] = {
    "id": "c0", "model": "demo/tiny", "round": 1, "base": "v0", "contributor": "ann",
    "state": "accepted", "encoding": "full", "files": [], "work": {}, "declared_at": NOW,
    "completed_at": NOW, "decided_at": NOW, "expires_at": NOW, "uploaded_bytes": 1,
    "total_bytes": 1, "reason": None, "hint": None, "findings": [], "weight": None, "result": None,
}  # fmt: skip


def lines(**changes: Any) -> list[str]:
    return list(receipt_lines(Contribution.model_validate({**BARE, **changes})))


def test_of_what_nothing_is_known_nothing_is_said() -> None:
    assert lines() == []


def test_findings_have_their_numbers() -> None:
    passed = {"check": "finite", "verdict": "pass", "message": "all values are finite"}
    far = {
        "check": "norm", "verdict": "quarantine", "message": "7.1 times as long as the median",
        "measured": 7.1234567, "limit": 5.0,
    }  # fmt: skip
    assert lines(findings=[passed, far], hint="Wait.") == [
        "finite: pass: all values are finite",
        "norm: quarantine (measured 7.123, limit 5): 7.1 times as long as the median",
        "Wait.",
    ]


def test_a_decision_and_the_part_in_the_fuse_are_told() -> None:
    score = {
        "suite": "gate", "base": 71.0, "score": 72.25, "difference": 1.25, "standard_error": 0.5,
    }  # fmt: skip
    told = lines(
        decided_by="max", decision="a new language", staleness=2, factor=0.5774, carried=1,
        weight=0.25, cosine=0.8312, norm_ratio=1.1, round_effect=score,
    )  # fmt: skip
    assert told == [
        "late: 2 bases behind, counts 0.58 times",
        "kept: moved on to a later round once",
        "decided: by max: a new language",
        "weight: 0.25",
        "cosine with the round's mean: 0.83",
        "length: 1.10 times the round's median",
        "score of the round: 71.00 -> 72.25 (+1.25 ± 0.50 points on gate)",
    ]
    unsure = lines(own_effect={**score, "standard_error": None})
    assert unsure == ["score alone: 71.00 -> 72.25 (+1.25 points on gate)"]
