"""Every kind of task, contributed by the real command line from a base of every kind that fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from coldfusion_client.cli.app import app
from coldfusion_shared.tasks import in_order, task_named
from tests.e2e.programs import Server
from tests.tiny_models import tiny_model

# One architecture for each kind of base.
KINDS = {"encoder": "bert", "decoder": "llama", "encoder-decoder": "t5"}
WAYS = [
    pytest.param(task.name, KINDS[kind], id=f"{task.name}-{KINDS[kind]}")
    for task in in_order()
    for kind in task.architectures
]
WORDS = ("bad", "awful", "good", "great")

# What a person would write for each, so that nothing has to be said of it but where two kinds of
# bases learn differently from the same data.
ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "instruction": lambda i: {"prompt": f"was film {i} good?", "completion": WORDS[i % 4]},
    "multiple-choice": lambda i: {
        "question": f"was film {i} good?", "choices": ["good", "bad"], "label": i % 2,
    },
    "question-answering": lambda i: {
        "question": f"how was film {i}?", "context": f"the film {'is' if i % 2 else 'wa'} good",
        "answers": {"text": ["film"], "answer_start": [4]},
    },
    "token-classification": lambda i: {
        "tokens": ["the", "film", WORDS[i % 4]], "ner_tags": ["O", "B-ART", "O"],
    },
    "seq2seq": lambda i: {"source": f"film {i} was {WORDS[i % 4]}", "target": WORDS[i % 4]},
    "multi-label": lambda i: {
        "text": f"film {i}", "labels": ["good"] * (i % 2) + ["warm"] * (i // 2 % 2),
    },
    "regression": lambda i: {"sentence1": f"film {i}", "sentence2": "a film", "score": i % 5 + 0.5},
    "classification": lambda i: {"text": f"film {i} was {WORDS[i % 4]}", "label": i // 2 % 2},
    "masked-language-modelling": lambda i: {"text": f"film {i} was {WORDS[i % 4]}"},
    "causal-language-modelling": lambda i: {"text": f"film {i} was {WORDS[i % 4]}"},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("repository")
    running = Server(folder / "data")
    running.start()
    for kind in KINDS.values():
        base = tiny_model(folder / kind, kind)
        running.command(
            *("model", "create", f"lab/{kind}", "--from", str(base)),
            *("--min-contributions", "100", "--public"),
        )
    yield running
    running.end()


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.command("token", "create", "ada", "--role", "contributor")


@pytest.fixture(autouse=True)
def home(server: Server, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLDFUSION_SERVER", server.url)
    monkeypatch.setenv("COLDFUSION_TOKEN", token)
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"COLDFUSION_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("coldfusion_client.submission._FIRST_LOOK", 0.05)


def contribute(model: str, rows: list[dict[str, Any]], *words: str) -> int:
    """Contribute to a model, and return the exit status."""
    Path("mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(SystemExit) as ended:
        app(
            [
                *("contribute", model, "--data", "mine.jsonl", "--json"),
                *("--max-steps", "2", "--batch-size", "4", "--max-length", "24", *words),
            ],
            prog_name="coldfusion-client",
        )
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(("task", "kind"), WAYS)
def test_it_is_read_learnt_and_accepted(
    server: Server, capsys: pytest.CaptureFixture[str], task: str, kind: str
) -> None:
    status = contribute(f"lab/{kind}", [ROWS[task](i) for i in range(24)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    told = json.loads(printed.out)
    assert (told["state"], told["metric"]) == ("accepted", task_named(task).metric)
    assert (told["score_before"] is not None) == (task == "classification")
    contribution = server.get(f"/contributions/{told['contribution']}")
    assert contribution["work"]["task"] == task
    assert contribution["base"] == "v0"
    assert (Path(told["output"]) / "model.safetensors").is_file()


def create(server: Server, model: str, base: Path) -> None:
    server.command(
        "model", "create", model, "--from", str(base), "--min-contributions", "100", "--public"
    )


def test_a_base_without_a_head_for_it_is_refused_before_its_weights_are_fetched(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_model(tmp_path / "phi", "llama")
    config = json.loads((base / "config.json").read_text())
    changed = {"model_type": "phi", "architectures": ["PhiForCausalLM"]}
    (base / "config.json").write_text(json.dumps(config | changed))
    create(server, "lab/phi", base)
    rows = [ROWS["question-answering"](i) for i in range(24)]
    assert contribute("lab/phi", rows) == 8
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["message"] == (
        "transformers has no head for question-answering on models of the type phi."
    )
    assert "token-classification" in told["hint"]
    fetched = [path for path in (tmp_path / "cache" / "objects").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in fetched) < 10_000
    assert not Path("coldfusion-runs").exists()


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_training_that_diverges_ends_with_a_lower_rate(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    base = tiny_model(tmp_path / "wild", "bert")
    weights = load_file(base / "model.safetensors")
    # Finite, and nothing that is computed with it.
    weights["embeddings.LayerNorm.weight"] *= 1e20
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    create(server, f"lab/wild-{task}", base)
    rows = [ROWS[task](i) for i in range(24)]
    assert contribute(f"lab/wild-{task}", rows, "--lr", "1") == 11
    printed = capsys.readouterr()
    told = json.loads(printed.out)["error"]
    assert told["message"].startswith("The training diverged: after step 1 the loss or")
    assert told["hint"] == "Use a lower learning rate, such as --lr 1e-04."
    assert ("The base could not be scored" in printed.err) == (task == "classification")
