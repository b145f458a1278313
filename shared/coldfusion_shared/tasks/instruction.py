"""Instruction tuning: conversations, of which a model learns what the assistant says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.data.values import text_of, texts_of
from coldfusion_shared.errors import BadData
from coldfusion_shared.tasks import Scoring, tasks
from coldfusion_shared.tasks.architectures import architecture_of
from coldfusion_shared.tasks.conversations import (
    ASSISTANT,
    ROLES,
    Conversation,
    Message,
    learnt_tokens,
    plainly_said,
    rendered,
    turns,
)
from coldfusion_shared.tasks.heads import head_of
from coldfusion_shared.tasks.labelled import by_length, first
from coldfusion_shared.tasks.pretrained import load_model
from coldfusion_shared.tasks.raw_text import has_nothing_else
from coldfusion_shared.tasks.roles import Role
from coldfusion_shared.tasks.tokens import (
    IGNORED,
    PadRight,
    next_token_sums,
    require_offsets,
    token_metrics,
    token_sums,
)

if TYPE_CHECKING:
    from coldfusion_shared.data.table import Table
    from coldfusion_shared.tasks.architectures import Architecture

MESSAGES = Role(
    "messages",
    ("messages", "conversations", "conversation", "chat"),
    "the messages",
    required=False,
)
PROMPT = Role("prompt", ("prompt", "instruction", "question"), "the prompt", required=False)
INPUT = Role("input", ("input", "context"), "what the prompt is about", required=False)
COMPLETION = Role(
    "completion",
    ("completion", "output", "response", "answer"),
    "the completion",
    required=False,
)

# What other programs call the assistant and the user.
_ALIASES = {"human": "user", "gpt": ASSISTANT}


class Instruction:
    """Messages, or prompts with their completions, for models that write."""

    name = "instruction"
    metric = "accuracy"
    roles = (MESSAGES, PROMPT, INPUT, COMPLETION)
    inputs = ("messages",)
    heads: Mapping[Architecture, str] = {
        "decoder": "AutoModelForCausalLM",
        "encoder-decoder": "AutoModelForSeq2SeqLM",
    }
    architectures = tuple(heads)
    generates = False

    def fits(
        self, table: Table, columns: Mapping[str, str], architecture: Architecture | None
    ) -> bool:
        """The base can write, and there are messages, or prompts and completions."""
        if architecture not in self.architectures or not _is_complete(columns):
            return False
        prompt = columns.get("prompt", "")
        # Questions about a text, or with choices, are other tasks.
        return prompt.strip().lower() != "question" or has_nothing_else(
            table, (prompt, columns["completion"])
        )

    def parse(
        self, tables: Mapping[str, Table], columns: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, Split]]:
        """Return splits with one column, "messages": for each example tuples (role, content)."""
        if not _is_complete(columns):
            raise BadData(
                f"{tables['train'].where} has neither messages nor prompts with completions.",
                hint="Name their columns: --column messages=NAME, or --column prompt=NAME and "
                "--column completion=NAME.",
            )
        return (), {
            name: Split({"messages": tuple(_conversations(table, columns))})
            for name, table in tables.items()
        }

    def check(self, dataset: TextDataset) -> None:
        """Whatever could be parsed will do."""

    def build_model(self, base: Path, dataset: TextDataset) -> Any:
        """Return the base with the head that it writes with; raises `BadModel`."""
        return load_model(head_of(base, self.name, self.heads), base)

    def encode(self, tokenizer: Any, split: Split, max_length: int) -> Sequence[dict[str, Any]]:
        """Return conversations of a decoder, or answers of an encoder-decoder, each cut."""
        conversations = plainly_said(tokenizer, split["messages"])
        # A tokenizer knows its folder; what the model is like is in there, too.
        if architecture_of(Path(tokenizer.name_or_path) / "config.json") == "encoder-decoder":
            return list(_answers(tokenizer, conversations, max_length))
        require_offsets(tokenizer)
        learnt = (learnt_tokens(tokenizer, said, max_length) for said in conversations)
        return [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
            for ids, labels in learnt
        ]

    def scoring(self, tokenizer: Any, split: Split, max_length: int) -> Scoring:
        """Score next-token accuracy and perplexity over what the assistant says."""
        examples = by_length(self.encode(tokenizer, split, max_length))
        return Scoring(examples, lambda predictions, _: token_metrics(predictions))

    def collator(self, tokenizer: Any, model: Any) -> Callable[[list[dict[str, Any]]], Any]:
        """Return what fills up conversations, or sources and answers, of a batch."""
        if not model.config.is_encoder_decoder:
            return PadRight(tokenizer)
        from transformers import DataCollatorForSeq2Seq

        pad: Callable[[list[dict[str, Any]]], Any] = DataCollatorForSeq2Seq(tokenizer, model=model)
        return pad

    def reduce(self, logits: Any, labels: Any) -> Any:
        """Keep three sums an example in place of its logits."""
        # A decoder's first token is never learnt, an encoder-decoder's first one always.
        sums = next_token_sums if bool((labels[:, 0] == IGNORED).all()) else token_sums
        return sums(first(logits), labels)


def _is_complete(columns: Mapping[str, str]) -> bool:
    return "messages" in columns or {"prompt", "completion"} <= set(columns)


def _conversations(table: Table, columns: Mapping[str, str]) -> Iterator[Conversation]:
    if "messages" in columns:
        for row in range(len(table.lines)):
            yield _conversation(table, row, columns["messages"])
        return
    prompts = texts_of(table, columns["prompt"], "prompt")
    completions = texts_of(table, columns["completion"], "completion")
    # Most rows of instruction data have none.
    column = columns.get("input")
    about = table.columns[column] if column else [None] * len(prompts)
    for row, (prompt, cell, completion) in enumerate(zip(prompts, about, completions, strict=True)):
        added = text_of(table, row, str(column), "input", cell)
        asked = f"{prompt}\n\n{added}" if added.strip() else prompt
        yield ("user", asked), (ASSISTANT, completion)


def _conversation(table: Table, row: int, column: str) -> Conversation:
    cell = table.columns[column][row]
    if not isinstance(cell, list | tuple):
        raise BadData(
            f"{table.at(row)}: the messages are {cell!r:.40}, which is no list.",
            hint='Write [{"role": "user", "content": "..."}, {"role": "assistant", ...}].',
        )
    told = [_message(table, row, column, one) for one in cell]
    # Many data sets have a column for the system's message, which is often empty.
    messages = tuple((role, content) for role, content in told if content.strip())
    if not turns(messages):
        raise BadData(
            f"{table.at(row)}: no message is the assistant's, so there is nothing to learn.",
            hint='Add the answer with the role "assistant", or delete the example.',
        )
    return messages


def _message(table: Table, row: int, column: str, cell: Any) -> Message:
    told: dict[str, Any] = cell if isinstance(cell, dict) else {}
    name = told.get("role", told.get("from"))
    role = _ALIASES.get(str(name), str(name))
    if role not in ROLES:
        raise BadData(
            f"{table.at(row)}: a message has the unknown role {name!r:.40}.",
            hint=f"Known are {', '.join(ROLES)}.",
        )
    content = text_of(table, row, column, "messages", told.get("content", told.get("value")))
    if role != "system" and not content.strip():
        raise BadData(
            f"{table.at(row)}: a message of the {role} says nothing.",
            hint="Its content must be a text; fill it in or delete the example.",
        )
    return role, content


def _answers(
    tokenizer: Any, conversations: Iterable[Conversation], max_length: int
) -> Iterator[dict[str, Any]]:
    """Yield each answer of the assistant as a target, and all that was said before as a source."""
    for said in conversations:
        for turn in turns(said):
            source = tokenizer(
                rendered(tokenizer, said[:turn], ask=True), truncation=True, max_length=max_length
            )
            target = tokenizer(text_target=said[turn][1], truncation=True, max_length=max_length)
            yield {**source, "labels": target["input_ids"]}


tasks.register("instruction")(Instruction())
