"""The documentation tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import REFERENCE, pages

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("file", sorted(pages()))
def test_the_reference_is_what_the_code_says(file: str) -> None:
    written = (REFERENCE / file).read_text(encoding="utf-8")
    assert written == pages()[file], "run: python docs/generate.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_command_that_the_documents_show_exists() -> None:
    known = set(re.findall(r"^## (coldfusion-.+)$", "\n".join(pages().values()), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for program, words in re.findall(r"^(coldfusion-(?:client|server)) ([a-z -]+)", text, re.M):
            shown = [word for word in words.split(" ") if word and not word.startswith("-")]
            candidates = {f"{program} {' '.join(shown[:n])}" for n in (1, 2)}
            assert candidates & known, f"{document.name}: {program} {words}"
