"""Texts that say what a tokenizer calls a special token: they are texts, to every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from coldfusion_shared.data import Split, TextDataset
from coldfusion_shared.tasks import in_order, task_named
from coldfusion_shared.tasks.architectures import Architecture
from coldfusion_shared.tasks.conversations import plainly_said
from coldfusion_shared.tasks.pretrained import load_tokenizer
from coldfusion_shared.tasks.tokenized import special_ids, special_tokens, tokenized
from tests.shared.tasks.rows import KIND_OF
from tests.tiny_models import ARCHITECTURES, WORDS, tiny_model

KINDS: dict[str, Architecture] = {**KIND_OF, "unigram": "encoder-decoder"}
TASKS = [(t.name, kind) for t in in_order() for kind in KINDS if KINDS[kind] in t.architectures]
LENGTH = 60


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    made = {kind: tiny_model(folder / kind, kind) for kind in ARCHITECTURES}
    made["unigram"] = tiny_model(folder / "unigram", "t5")
    unigram().save_pretrained(made["unigram"])
    return made


def unigram() -> Any:
    """Return a tokenizer as T5's are, whose vocabulary holds "</s>" as if it were a word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["\u2581", *(f"\u2581{word}" for word in WORDS), *"abcdefghijklmnopqrstuvwxyz<>/"]
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = [(name, 0.0) for name in special.values()] + [(word, -5.0) for word in words]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    build: Any = PreTrainedTokenizerFast  # its constructor has no types
    return build(
        tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **special
    )


def split_of(task: str, said: str) -> Split:
    """Return two examples, of which all that people write says `said`."""
    text, plain = f"a {said} film{said} {said}", "a film"
    by_task: dict[str, dict[str, tuple[Any, ...]]] = {
        "instruction": {"messages": ((("user", text), ("assistant", text)),) * 2},
        "multiple-choice": {"text": (text,) * 2, "choices": ((text, plain),) * 2, "label": (0, 1)},
        "question-answering": {
            "question": (text,) * 2,
            "context": (f"{text} was good",) * 2,
            "answers": (((f"{text} was good".index("good"), "good"),),) * 2,
        },
        "token-classification": {"tokens": ((*text.split(), "film"),) * 2, "tags": ()},
        "seq2seq": {"source": (text,) * 2, "target": (text,) * 2},
        "multi-label": {"text": (text, plain), "label": ((0,), (0, 1))},
        "regression": {"text": (text, plain), "label": (0.5, 1.5)},
        "classification": {
            "text": (text, plain, text), "text_pair": (text, text, plain), "label": (0, 1, 0),
        },
    }  # fmt: skip
    columns = by_task.get(task, {"text": (text, text)})
    if task == "token-classification":
        columns["tags"] = tuple((0,) * len(words) for words in columns["tokens"])
    return Split(columns, ("O", "B-X"))


def special_count(tokenizer: Any, value: Any) -> int:
    if isinstance(value, list):
        return sum(special_count(tokenizer, one) for one in value)
    return value in special_ids(tokenizer) - {tokenizer.unk_token_id}


def encoded(base: Path, task: str, said: str, length: int = 400) -> list[dict[str, Any]]:
    return list(task_named(task).encode(load_tokenizer(base), split_of(task, said), length))


@pytest.mark.parametrize(("task", "kind"), TASKS)
def test_no_text_says_a_special_token(bases: dict[str, Path], task: str, kind: str) -> None:
    base = bases[kind]
    tokenizer = load_tokenizer(base)
    said = " ".join(special_tokens(tokenizer))
    counts = [
        [special_count(tokenizer, example["input_ids"]) for example in encoded(base, task, text)]
        for text in (said, "good")
    ]
    assert counts[0] == counts[1]
    labels = [
        [special_count(tokenizer, example["labels"]) for example in encoded(base, task, text)]
        for text in (said, "good")
        if task in ("seq2seq", "instruction")
    ]
    assert labels[:1] == labels[1:]


@pytest.mark.parametrize(("task", "kind"), TASKS)
def test_a_model_learns_from_them(bases: dict[str, Path], task: str, kind: str) -> None:
    base = bases[kind]
    tokenizer = load_tokenizer(base)
    split = split_of(task, " ".join(special_tokens(tokenizer)))
    dataset = TextDataset("films", task, ("O", "B-X"), split, split, split)
    model = task_named(task).build_model(base, dataset)
    examples = list(task_named(task).encode(tokenizer, split, LENGTH))
    batch = task_named(task).collator(tokenizer, model)([dict(one) for one in examples])
    with torch.no_grad():
        assert model(**batch).loss.isfinite()
    assert len(task_named(task).scoring(tokenizer, split, LENGTH).examples)


@pytest.mark.parametrize("kind", ["t5", "unigram"])
def test_every_text_ends_once(bases: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(bases[kind])
    texts = ["a film", "a </s> film", "a</s>", "</s></s>", "a \uff1c/s\uff1e film"]
    for ids in tokenized(tokenizer, texts)["input_ids"]:
        assert ids.count(tokenizer.eos_token_id) == 1 == ids[-1:].count(tokenizer.eos_token_id)


@pytest.mark.parametrize("kind", KINDS)
def test_other_texts_are_what_they_were_and_the_tokenizer_too(
    bases: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    tokenizer = load_tokenizer(bases[kind])
    tokenizer.save_pretrained(tmp_path / "before")
    texts = ["a film", "was < good >, [not] bad", "\u00e9t\u00e9"]
    plain = dict(tokenizer(texts, texts))
    assert dict(tokenized(tokenizer, texts, texts)) == plain
    tokenizer.save_pretrained(tmp_path / "after")
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()
    # What a chat template writes is read as ever.
    assert tokenizer(tokenizer.pad_token, add_special_tokens=False)["input_ids"] == [
        tokenizer.pad_token_id
    ]


def test_nobody_ends_a_message_of_a_conversation(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["qwen2"])
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    said = (("user", "a<|im_end|><|im_end|>b"), ("assistant", "plain"))
    assert list(plainly_said(tokenizer, [said])) == [
        (("user", "a< |im_end|>< |im_end|>b"), ("assistant", "plain"))
    ]
