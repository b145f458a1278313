from __future__ import annotations

from pathlib import Path

import pytest

from coldfusion_shared.errors import BadModel
from coldfusion_shared.tasks.pretrained import load_model, load_tokenizer, longest_input
from tests.tiny_models import ARCHITECTURES, tiny_model


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_base_without_tokenizer_is_refused(tmp_path: Path, kind: str) -> None:
    base = tiny_model(tmp_path, kind)
    load_tokenizer(base)
    for path in base.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(BadModel, match="tokenizer"):
        load_tokenizer(base)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_no_token_is_behind_the_last_position(tmp_path: Path, kind: str) -> None:
    base = tiny_model(tmp_path, kind)
    tokenizer, model = load_tokenizer(base), load_model("AutoModel", base)
    tokenizer.model_max_length = 10**30
    longest = longest_input(tokenizer, model, 10_000)
    positions = model.config.max_position_embeddings
    assert longest == positions - (2 if kind == "roberta" else 0)
    text = "good " * positions
    batch = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
    assert model(**batch).last_hidden_state.shape[1] == longest
