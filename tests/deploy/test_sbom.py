"""The bill of materials: all of what people install, and nothing of what only we use."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from deploy import audit
from deploy.sbom import PROJECT, pins, shipped

ROOT = Path(__file__).parents[2]


def test_it_has_what_is_installed_and_no_tools() -> None:
    found = shipped()
    assert {"fastapi", "starlette", "torch", "numpy", "psycopg", "boto3", "h11"} <= set(found)
    assert not {"pytest", "mypy", "schemathesis", "atheris", "moto", "mergekit"} & set(found)
    assert {"starlette", "pydantic"} <= found["fastapi"]
    assert PROJECT not in found[PROJECT]


def test_pins_name_each_package_once_without_its_build() -> None:
    lines = list(pins())
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names)) and PROJECT not in names
    assert f"torch=={version('torch').split('+')[0]}" in lines


def test_the_document_is_cyclonedx() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.sbom"], cwd=ROOT, capture_output=True, check=True
    )
    bill: Any = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["name"] == PROJECT
    parts = {part["name"]: part for part in bill["components"]}
    assert set(parts) == set(shipped()) - {PROJECT}
    assert parts["jinja2"]["purl"] == f"pkg:pypi/jinja2@{version('jinja2')}"
    refs = {part["bom-ref"] for part in [*bill["components"], bill["metadata"]["component"]]}
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency.get("dependsOn", [])} <= refs


def test_without_the_network_the_audit_says_that_it_was_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "SERVICE", "http://127.0.0.1:9/v1/nothing")
    assert audit.main() == 0
    assert "SKIPPED" in capsys.readouterr().err
