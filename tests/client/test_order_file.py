from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from coldfusion_client import contribute as work
from coldfusion_client.cli.app import app
from coldfusion_client.cli.init import toml_value
from coldfusion_client.cli.order_file import is_setting, parameters
from coldfusion_shared.finetune.settings import FinetuneSettings
from tests.client.helpers import weights
from tests.client.repository import MODEL, TOKEN, Repository
from tests.client.trainer import FakeTrainer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app(arguments, prog_name="coldfusion-client")
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return ran


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, url: str) -> list[Any]:
    """What `contribute` is asked to do; it does it without torch."""
    seen: list[Any] = []

    original = work.contribute

    def instead(order: Any, source: Any, trainer: Any) -> Any:
        seen.append(order)
        return original(order, source, FakeTrainer())

    monkeypatch.setattr(work, "contribute", instead)
    monkeypatch.setenv("COLDFUSION_SERVER", url)
    monkeypatch.setenv("COLDFUSION_TOKEN", TOKEN)
    return seen


def write(text: str, name: str = "contribution.toml") -> None:
    Path(name).write_text(text, encoding="utf-8")


def uncommented(text: str) -> dict[str, Any]:
    """The file as it reads when every default is taken out of its comment."""
    lines = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    return tomllib.loads("\n".join(line for line in lines if not line.endswith("...")))


def test_what_init_writes_is_read_and_is_nothing_but_the_defaults(run: Run) -> None:
    assert run("init", MODEL, "--data", "reviews.csv")[0] == 0
    text = Path("contribution.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == {
        "model": MODEL, "data": "reviews.csv", "columns": {}, "settings": {},
    }  # fmt: skip
    settings = uncommented(text)["settings"]
    assert FinetuneSettings(**settings) == FinetuneSettings()
    for name, field in FinetuneSettings.model_fields.items():
        assert f"# {name} = {toml_value(field.default)}\n" in text + "\n"


def test_every_setting_is_an_option_of_contribute() -> None:
    assert {name for name in parameters() if is_setting(name)} == set(FinetuneSettings.model_fields)


def test_init_touches_nothing_that_is_there(run: Run) -> None:
    write("mine")
    code, _, said = run("init")
    assert (code, Path("contribution.toml").read_text()) == (2, "mine")
    assert "--out" in said
    code, out, said = run("init", "--out", "zweite ü.toml")
    assert (code, out) == (0, "zweite ü.toml\n")
    assert "--config 'zweite ü.toml'" in said
    assert run("init", "no-model")[0] == 2


def test_the_file_in_the_folder_is_read(
    run: Run, orders: list[Any], repository: Repository
) -> None:
    write(
        f"model = '{MODEL}'\ndata = 'Übung/日本.csv'\noutput = 'läufe'\nwait = false\n"
        "[columns]\nlabel = 'Urteil'\n[settings]\nepochs = 2\nearly_stopping = false\n"
    )
    code, _, said = run("contribute")
    assert code == 0, said
    (order,) = orders
    assert (order.model, order.data.source, order.output) == (
        MODEL, "Übung/日本.csv", Path("läufe"),
    )  # fmt: skip
    assert order.data.columns == {"label": "Urteil"}
    assert (order.settings.epochs, order.settings.early_stopping, order.wait) == (2.0, False, False)
    assert "come from contribution.toml" in said
    assert repository.received("c0") == weights(0.5)


def test_flags_win(run: Run, orders: list[Any]) -> None:
    write("model = 'a/b'\ndata = 'a.csv'\nwait = false\n[columns]\ntext = 't'\n[settings]\nlr=1e-3")
    given = ["--data", "b.csv", "--lr", "1e-4", "--wait", "--column", "label=y"]
    assert run("contribute", MODEL, *given)[0] == 0
    (order,) = orders
    assert (order.model, order.data.source, order.settings.lr) == (MODEL, "b.csv", 1e-4)
    assert (order.wait, order.data.columns) == (True, {"label": "y"})


def test_a_file_that_is_named_is_read_instead(run: Run, orders: list[Any]) -> None:
    write("nonsense")
    write(f"\ufeffmodel = '{MODEL}'\r\ndata = 'c.csv'\r\n", "andere ü.toml")
    assert run("contribute", "--config", "andere ü.toml")[0] == 0
    assert orders[0].data.source == "c.csv"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[settings]\nepohcs = 3", "do you mean epochs?"),
        ("wiat = true", "do you mean wait?"),
        ("epochs = 3", "epochs belongs below [settings]"),
        ("[settings]\nmodel = 'a/b'", "model belongs before the first section"),
        ("[setings]\nlr = 1", "there is no section [setings]"),
        ("columns = 3", "[columns]"),
        ("column = 3", "[columns]"),
        ("[settings]\nlr = 'fast'", "lr = 'fast'"),
        ("[settings]\nepochs = true", "epochs = True"),
        ("model = 3", "model = 3"),
        ("model = [1]", "a text, a number"),
        ("qqqq = 1", "nothing is called qqqq"),
        ('data = "C:\\new\\data.csv"', "'single quotes'"),
        # A file that came with somebody's data must not say where a token goes.
        ("server = 'https://evil.example'", "nothing is called server"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(run: Run, text: str, said: str) -> None:
    write(text)
    code, _, told = run("contribute", MODEL, "--data", "a.csv", "--server", "http://127.0.0.1:9")
    assert code == 2
    assert "contribution.toml" in told and said in told


def test_a_file_that_cannot_be_read_is_refused(run: Run) -> None:
    assert "No such file" in run("contribute", "--config", "none.toml")[2]
    Path("contribution.toml").write_bytes(b"data = '\xff'")
    assert "UTF-8" in run("contribute")[2]


@pytest.mark.parametrize(
    "value",
    [r"C:\neu\tab.csv", "it's", "it's 🎉", "日本", 'a"b', "a\nb", 5e-5, 1e22, True, 3, "x\x7f"],
)
def test_values_are_read_as_they_were(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}


def test_windows_paths_are_kept(run: Run) -> None:
    path = PureWindowsPath("C:/neu/träger/daten.csv")
    run("init", MODEL, "--data", str(path))
    read = tomllib.loads(Path("contribution.toml").read_text(encoding="utf-8"))
    assert PureWindowsPath(read["data"]) == path


def test_no_lora_on_the_command_line_overrules_the_files_adapter(
    run: Run, orders: list[Any]
) -> None:
    adapter = "lora_rank = 2\nlora_targets = 'query'\ndora = true\n"
    write(f"model = '{MODEL}'\ndata = 'films.csv'\n[settings]\nlora = true\n{adapter}epochs = 2\n")
    run("contribute")
    assert (orders[-1].settings.lora, orders[-1].settings.lora_rank) == (True, 2)
    run("contribute", "--no-lora")
    assert orders[-1].settings == FinetuneSettings(epochs=2)
    seen = len(orders)
    # What is typed beside it is a mistake, and so is a file that contradicts itself.
    code, _, said = run("contribute", "--no-lora", "--rank", "4")
    assert code == 2 and "--rank: Value error, it does nothing without lora" in said
    write(f"model = '{MODEL}'\ndata = 'films.csv'\n[settings]\nlora = false\n{adapter}")
    code, _, said = run("contribute")
    assert code == 2 and "--rank: Value error" in said
    assert len(orders) == seen


def test_no_dp_on_the_command_line_overrules_the_files_noise(run: Run, orders: list[Any]) -> None:
    write(
        f"model = '{MODEL}'\ndata = 'films.csv'\n"
        "[settings]\ndp = true\ndp_epsilon = 3\ndp_clip = 0.5\nepochs = 2\n"
    )
    run("contribute")
    found = orders[-1].settings
    assert (found.dp, found.wanted_epsilon, found.clip) == (True, 3.0, 0.5)
    run("contribute", "--no-dp")
    assert orders[-1].settings == FinetuneSettings(epochs=2)
    code, _, said = run("contribute", "--dp-noise", "2")
    assert code == 2 and "give an epsilon or the noise, not both" in said
