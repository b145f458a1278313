from __future__ import annotations

import os
from pathlib import Path

import pytest

from coldfusion_client.contribute import Order, contribute
from coldfusion_client.folder_names import require_utf8
from coldfusion_client.source import Source
from coldfusion_client.training import Data
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune import FinetuneSettings
from tests.client.repository import MODEL, Repository
from tests.client.trainer import FakeTrainer

# As Python takes the bytes of a name that is not UTF-8, and of one that is, in an ASCII locale.
LATIN = Path(b"caf\xe9".decode("utf-8", "surrogateescape"))
ASCII = Path("café".encode().decode("ascii", "surrogateescape"))


@pytest.mark.parametrize("folder", [Path(), Path("läufe 模型"), Path("/")])
def test_a_name_that_is_text_will_do(folder: Path) -> None:
    require_utf8(folder)


@pytest.mark.parametrize(
    ("folder", "message", "hint"),
    [
        (LATIN, "the folder .*caf\ufffd is not UTF-8", "--output DIR"),
        (LATIN / "run", "the folder .*caf\ufffd/run is not UTF-8", "COLDFUSION_CACHE"),
        (ASCII, "In this locale the name of the folder .*café", "PYTHONUTF8=1"),
    ],
)
def test_any_other_is_refused(folder: Path, message: str, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as told:
        require_utf8(Path("fine"), folder)
    assert hint in str(told.value.hint)


def test_it_is_refused_before_anything_is_done(source: Source, repository: Repository) -> None:
    trainer = FakeTrainer()
    order = Order(MODEL, Data("mine.csv"), FinetuneSettings(), output=LATIN)
    with pytest.raises(InvalidRequest):
        contribute(order, source, trainer)
    assert (trainer.trained, repository.requests) == (0, [])
    assert not os.path.lexists(LATIN)
