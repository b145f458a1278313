from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.weights.vocabulary import check_vocabulary, vocabulary_of
from tests.tiny_models import ARCHITECTURES, tiny_model

TOKENS = {"[PAD]": 0, "good": 1, "bad": 2}


def folder(path: Path, **files: Any) -> Path:
    """Write a folder of tokenizer files; in names without a dot the underscore stands for it."""
    path.mkdir()
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        file = path / (name if "." in name else name.replace("_", "."))
        file.write_bytes(text.encode())
    return path


def test_what_a_vocabulary_adds_elsewhere_is_no_change(tmp_path: Path) -> None:
    base = folder(
        tmp_path / "a", vocab_json=TOKENS, config_json={"vocab_size": 8},
        **{"added_tokens.json": {"<|end|>": 3}},
    )  # fmt: skip
    whole = folder(tmp_path / "b", tokenizer_json={"model": {"vocab": {**TOKENS, "<|end|>": 3}}})
    check_vocabulary(base, whole)
    check_vocabulary(whole, base)


def test_a_rare_line_separator_is_a_token(tmp_path: Path) -> None:
    base = folder(tmp_path / "a", vocab_txt="good\n\u2028\n\x85\nbad\n")
    assert vocabulary_of(base) == {"good": 0, "\u2028": 1, "\x85": 2, "bad": 3}


@pytest.mark.parametrize(
    "files",
    [
        {"vocab_txt": "[PAD]\ngood\nbad\n"},
        {"vocab_txt": "[PAD]\r\ngood\r\nbad\r\n"},
        {"vocab_json": {"good": 1, "bad": 2}, "added_tokens.json": {"[PAD]": 0}},
        {
            "vocab_txt": "[PAD]\ngood",
            "tokenizer_config.json": {"added_tokens_decoder": {"2": {"content": "bad"}}},
        },
        {"vocab_json": TOKENS},
        {"tokenizer_json": {"model": {"vocab": TOKENS}}},
        {"tokenizer_json": {"model": {"vocab": [["[PAD]", 0.0], ["good", -1.5], ["bad", -2]]}}},
        {
            "tokenizer_json": {
                "model": {"vocab": {"good": 1, "bad": 2}},
                "added_tokens": [{"id": 0, "content": "[PAD]"}],
            }
        },
    ],
)
def test_each_form_says_the_same(tmp_path: Path, files: dict[str, Any]) -> None:
    assert vocabulary_of(folder(tmp_path / "a", **files)) == TOKENS


@pytest.mark.parametrize(
    "files", [{}, {"tokenizer_json": "{"}, {"tokenizer_json": {"model": 3}}, {"vocab_json": "[1]"}]
)
def test_what_says_nothing_is_not_checked(tmp_path: Path, files: dict[str, Any]) -> None:
    silent = folder(tmp_path / "a", **files)
    assert vocabulary_of(silent) is None
    check_vocabulary(folder(tmp_path / "b", vocab_json=TOKENS), silent)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ({"[PAD]": 0, "good": 2, "bad": 1}, "'good' is number 1 there, and number 2 here"),
        ({"[PAD]": 0, "good": 1, "sad": 2}, "number 2 is 'bad' there, and 'sad' here"),
        ({**TOKENS, "warm": 3, "cold": 4}, "no embedding for, such as 'cold'"),
    ],
)
def test_another_one_is_refused(tmp_path: Path, tokens: dict[str, int], told: str) -> None:
    base = folder(tmp_path / "a", vocab_json=TOKENS, config_json={"vocab_size": 4})
    with pytest.raises(IncompatibleWeights, match=told) as caught:
        check_vocabulary(base, folder(tmp_path / "b", vocab_json=tokens))
    assert caught.value.hint is not None and "own tokenizer" in caught.value.hint


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_transformers_saves_again_is_the_same(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    base = tiny_model(tmp_path / "base", kind)
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert vocabulary_of(base)
    check_vocabulary(base, tmp_path / "saved")
    rows = json.loads((base / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"<another {number}>" for number in range(rows)])
    tokenizer.save_pretrained(tmp_path / "changed")
    with pytest.raises(IncompatibleWeights, match="no embedding for"):
        check_vocabulary(base, tmp_path / "changed")
