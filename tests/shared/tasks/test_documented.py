"""docs/how-to/tasks.md tells the truth: every task, its metric, and an example that is one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from coldfusion_shared.data.choice import choose_task
from coldfusion_shared.data.table import Table
from coldfusion_shared.tasks import ORDER
from coldfusion_shared.tasks.architectures import Architecture

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "tasks.md"
ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+?[^\\]) \| (.+) \| `(.+)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))
WRITERS: dict[str, Architecture] = {
    "instruction": "decoder",
    "seq2seq": "encoder-decoder",
    "causal-language-modelling": "decoder",
}


def test_the_page_names_all_tasks_in_the_order_in_which_they_are_tried() -> None:
    assert [name for name, *_ in ROWS] == list(ORDER)


@pytest.mark.parametrize(("name", "columns", "metric", "example"), ROWS)
def test_an_example_is_taken_for_its_task(
    name: str, columns: str, metric: str, example: str
) -> None:
    cells = {column: [value] * 20 for column, value in json.loads(example).items()}
    table = Table("mine.jsonl", cells, range(20))
    task, found = choose_task(table, {}, architecture=WRITERS.get(name, "encoder"))
    assert task.name == name
    assert metric.removesuffix(" of tokens") == task.metric
    assert set(found.values()) == set(cells)
    assert all(role.name in columns for role in task.roles if role.required)
