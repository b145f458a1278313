"""
Requests made from the API's own description, good and bad ones: no fault, no answer unlike it says.

COLDFUSION_FUZZ=50 tries fifty times as many.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.repository import MODEL, Repository, body_file, repository

TIMES = int(os.environ.get("COLDFUSION_FUZZ", "1"))
# It never ends; see tests/server/test_events.py.
ENDLESS = "/v1/events/stream"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A Repository in which there is one of everything."""
    folder = tmp_path_factory.mktemp("openapi")
    with repository(folder, rate_per_address=0, rate_per_token=0, wrong_tokens=0) as opened:
        opened.model()
        opened.contributor("ann").contribute(body_file(1))
        opened.contributor("bob").sent(body_file(2))
        yield opened


def known(repo: Repository) -> dict[str, str]:
    """Return what parameters of a path can be called, so that some requests find something."""
    owner, name = MODEL.split("/")
    items = repo.get(f"/v1/models/{MODEL}/contributions")["items"]
    return {"owner": owner, "name": name, "version": "v0", "number": "1", "path": "config.json",
            "contribution": items[0]["id"], "upload": f"{items[0]['id']}.0"}  # fmt: skip


def attack(repo: Repository, examples: int, **headers: str) -> Counter[int]:
    """Send so many requests of each operation and kind; return how many got which status."""
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", repo.app)
    real, got = known(repo), Counter[int]()

    def ask(case: Case[Any]) -> None:
        answer = case.call(headers=headers)
        got[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS, headers=headers)

    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.path == ENDLESS:
            continue
        quick = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=TIMES == 1,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        there = {name: value for name, value in real.items() if f"{{{name}}}" in operation.path}
        for mode, parameters in ((GenerationMode.POSITIVE, there), (GenerationMode.NEGATIVE, None)):
            quick(given(case=operation.as_strategy(mode, path_parameters=parameters))(ask))()
    return got


@pytest.mark.parametrize("role", [None, "contributor", "admin"])
def test_the_api_does_what_its_description_says(role: str | None, repo: Repository) -> None:
    headers = {} if role is None else {"Authorization": f"Bearer {repo.token(f'x-{role}', role)}"}
    with warnings.catch_warnings():
        # Of the tool itself, about what it cannot generate.
        warnings.simplefilter("ignore")
        got = attack(repo, 2 * TIMES, **headers)
    # They came further than the door.
    assert got[200] > 9 and got[404] and got[422] and got[401 if role is None else 403], got
