from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from coldfusion_shared.data import Split, TextDataset, load_dataset
from coldfusion_shared.errors import BadData
from coldfusion_shared.finetune import FinetuneSettings, finetune
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.conversations import learnt_tokens, rendered
from coldfusion_shared.tasks.pretrained import load_tokenizer
from tests.shared.tasks.rows import read_rows, write_parquet, write_rows
from tests.tiny_models import tiny_model

TASK: Any = task_named("instruction")
# ChatML, as Qwen's.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Leaves out of earlier answers what is before a bar, and wants user and assistant in turns.
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate.') }}{% endif %}[{{ m['role'] }}]"
    "{% if loop.last %}{{ m['content'] }}{% else %}{{ m['content'].split('|')[-1] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TALK = (
    ("system", "be warm"),
    ("user", "was the film good?"),
    ("assistant", "great"),
    ("user", "and the cold?"),
    ("assistant", "not bad"),
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {kind: tiny_model(folder / kind, kind) for kind in ("llama", "gpt2", "qwen2", "t5")}


def talk(*messages: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in messages]


def rows(count: int = 20) -> list[dict[str, Any]]:
    return [
        {"messages": talk(("user", f"was it {i}?"), ("assistant", "great"))} for i in range(count)
    ]


def read(tmp_path: Path, told: list[dict[str, Any]], **options: Any) -> list[Any]:
    dataset = read_rows(tmp_path, told, **{"architecture": "decoder", **options})
    assert (dataset.task, dataset.labels) == ("instruction", ())
    return sorted(one for split in dataset.splits.values() for one in split["messages"])


@pytest.mark.parametrize(
    "names",
    [("messages", "role", "content"), ("conversations", "from", "value")],
)
def test_messages(tmp_path: Path, names: tuple[str, str, str]) -> None:
    column, role, content = names
    told = [
        {column: [{role: "user", content: f"{i}?"}, {role: "assistant", content: "great"}]}
        for i in range(10, 30)
    ]
    assert read(tmp_path, told) == [
        (("user", f"{i}?"), ("assistant", "great")) for i in range(10, 30)
    ]


@pytest.mark.parametrize("nothing", ["", " ", None])
def test_a_system_that_says_nothing(tmp_path: Path, nothing: str | None) -> None:
    told = [
        {"messages": talk(("system", nothing), ("user", f"{i}"), ("assistant", "great"))}
        for i in range(10, 30)
    ]
    assert read(tmp_path, told)[0] == (("user", "10"), ("assistant", "great"))


def test_other_names_of_the_roles(tmp_path: Path) -> None:
    told = [
        {"conversations": [{"from": "human", "value": f"{i}"}, {"from": "gpt", "value": "great"}]}
        for i in range(10, 30)
    ]
    assert read(tmp_path, told)[0] == (("user", "10"), ("assistant", "great"))


def test_prompts_with_completions(tmp_path: Path) -> None:
    told = [{"prompt": f"say {i}", "completion": "great"} for i in range(10, 30)]
    assert read(tmp_path, told)[0] == (("user", "say 10"), ("assistant", "great"))
    told = [
        {"instruction": f"say {i}", "input": "" if i % 2 else "the film", "output": "great"}
        for i in range(10, 30)
    ]
    assert read(tmp_path, told, architecture="encoder-decoder")[:2] == [
        (("user", "say 10\n\nthe film"), ("assistant", "great")),
        (("user", "say 11"), ("assistant", "great")),
    ]


def test_parquet_and_jsonl_give_the_same(tmp_path: Path) -> None:
    jsonl, parquet = tmp_path / "x.jsonl", tmp_path / "x.parquet"
    write_rows(jsonl, rows())
    write_parquet(parquet, rows())
    one, other = (load_dataset(str(path), architecture="decoder") for path in (jsonl, parquet))
    assert one.digest == other.digest


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (talk(("user", "hi")), r"line 21: no message is the assistant's"),
        ([], "no message is the assistant's"),
        (talk(("user", "hi"), ("robot", "ho")), "line 21: a message has the unknown role 'robot'"),
        (talk(("user", "hi"), (None, "ho")), "unknown role None"),
        (["hi"], "unknown role None"),
        (talk(("user", "hi"), ("assistant", " ")), "a message of the assistant says nothing"),
        (talk(("user", None), ("assistant", "ho")), "a message of the user says nothing"),
        (talk(("user", "\ud83d"), ("assistant", "ho")), "column 'messages' holds half a character"),
        ("hi", "line 21: the messages are 'hi', which is no list"),
    ],
)
def test_messages_that_cannot_be(tmp_path: Path, messages: Any, message: str) -> None:
    with pytest.raises(BadData, match=message) as caught:
        read(tmp_path, [*rows(), {"messages": messages}])
    assert caught.value.hint


def test_an_empty_completion_and_a_missing_column(tmp_path: Path) -> None:
    told = [{"prompt": "say", "completion": ""}] * 20
    with pytest.raises(BadData, match="have no text in column 'completion'"):
        read(tmp_path, told)
    with pytest.raises(BadData, match="neither messages nor prompts") as caught:
        read_rows(tmp_path, [{"prompt": "say"}] * 20, task="instruction")
    assert "--column completion=NAME" in str(caught.value.hint)


def learnt(tokenizer: Any, conversation: Any, max_length: int = 500) -> str:
    ids, labels = learnt_tokens(tokenizer, conversation, max_length)
    assert len(ids) == len(labels) <= max_length
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    return str(tokenizer.decode([label for label in labels if label != -100]))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_the_plain_template(bases: dict[str, Path], kind: str) -> None:
    tokenizer = load_tokenizer(bases[kind])
    end = tokenizer.eos_token
    assert rendered(tokenizer, TALK[:3]) == (
        f"System: be warm\n\nUser: was the film good?\n\nAssistant: great{end}"
    )
    assert rendered(tokenizer, TALK[:2], ask=True).endswith("good?\n\nAssistant:")
    assert learnt(tokenizer, TALK) == f" great{end} not bad{end}"
    ids, _ = learnt_tokens(tokenizer, TALK, 500)
    assert ids == tokenizer(rendered(tokenizer, TALK))["input_ids"]
    # After the last answer is nothing to learn.
    assert learnt(tokenizer, TALK[:4]) == f" great{end}"


def test_the_tokenizers_own_template(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["qwen2"])
    tokenizer.chat_template = TEMPLATE
    assert learnt(tokenizer, TALK) == "great<|im_end|>\nnot bad<|im_end|>\n"
    # The assistant may speak first.
    assert learnt(tokenizer, TALK[2:]).endswith("great<|im_end|>\nnot bad<|im_end|>\n")
    ids, _ = learnt_tokens(tokenizer, TALK, 500)
    assert tokenizer.decode(ids).startswith("<|im_start|>system\nbe warm<|im_end|>\n<|im_start|>us")


def test_a_template_that_rewrites_earlier_answers(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["gpt2"])
    tokenizer.chat_template = STRICT
    talk = (("user", "a?"), ("assistant", "x|yes"), ("user", "b?"), ("assistant", "z|no"))
    assert rendered(tokenizer, talk) == "[user]a?[assistant]yes[user]b?[assistant]z|no"
    # The earlier answer is not as it would be said, so that it is no example of saying it.
    assert learnt(tokenizer, talk) == "z|no"
    with pytest.raises(BadData, match="template refuses the conversation .* 'be warm': Roles must"):
        learnt_tokens(tokenizer, TALK, 500)


def test_a_template_that_leaves_the_answers_out(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["gpt2"])
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(BadData, match="leaves out what the assistant says"):
        learnt_tokens(tokenizer, TALK[1:3], 500)


def test_what_is_too_long_keeps_an_answer(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["gpt2"])
    end = tokenizer.eos_token
    whole = len(learnt_tokens(tokenizer, TALK, 500)[0])
    assert learnt(tokenizer, TALK, whole - 2) == f" great{end} not"
    asked = (("user", "the film " * 50), ("assistant", "great"))
    assert learnt(tokenizer, asked, 10) == f" great{end}"
    told = (("user", "the film"), ("assistant", "great film " * 50))
    assert learnt(tokenizer, told, 12).startswith(" great film great")
    # The first token of all has nothing before it that could foretell it.
    assert learnt_tokens(tokenizer, told, 12)[1][0] == -100


def test_an_encoder_decoder_learns_every_answer(bases: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(bases["t5"])
    encoded = TASK.encode(tokenizer, Split({"messages": (TALK,)}), 64)
    assert [tokenizer.decode(example["labels"]) for example in encoded] == [
        "great</s>",
        "not bad</s>",
    ]
    source = tokenizer.decode(encoded[1]["input_ids"])
    assert source.endswith("Assistant: great</s>\n\nUser: and the cold?\n\nAssistant:</s>")


def toy(size: int, seed: int) -> Split:
    drawn = random.Random(seed)
    answers = {"good": "warm", "bad": "cold", "great": "awful"}
    asked = [drawn.choice(sorted(answers)) for _ in range(size)]
    return Split(
        {"messages": tuple((("user", word), ("assistant", answers[word])) for word in asked)}
    )


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_perplexity_is_that_of_a_direct_computation(bases: dict[str, Path], kind: str) -> None:
    base, split = bases[kind], Split({"messages": (TALK, TALK[:3], TALK[1:3])})
    tokenizer = load_tokenizer(base)
    model = TASK.build_model(base, TextDataset("x", TASK.name, (), split, split, split)).eval()
    scoring, collator = TASK.scoring(tokenizer, split, 64), TASK.collator(tokenizer, model)
    losses = []
    for example in scoring.examples:
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss
        count = int((labels[:, 1 if kind == "llama" else 0 :] != -100).sum())
        losses += [float(loss)] * count
    batch = collator([*scoring.examples])
    with torch.no_grad():
        outputs = model(**batch)
    sums = TASK.reduce((outputs.logits, None), batch["labels"])
    scores = scoring.score(sums.numpy(), None)
    assert scores["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_it_learns_to_answer(bases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    dataset = TextDataset("films", TASK.name, (), toy(96, 0), toy(16, 1), toy(16, 2))
    settings = FinetuneSettings(
        epochs=8, lr=1e-2, batch_size=8, max_length=48, seed=1, early_stopping=False
    )
    result = finetune(bases[kind], dataset, settings, tmp_path / "out")
    assert (result.task, result.metric) == ("instruction", "accuracy")
    assert result.test > 90
    assert result.metrics["perplexity"] < 1.5
