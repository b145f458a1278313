"""The options that set a model's policy: what each is called, how it is read, what it sets."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from coldfusion_server.cli.options import number_or_word, pairs, parse_duration
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.schemas.gates import Gate
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.recipes import Dare

# By field of the policy, of a part of it as `gate.suite`; null: the default again.
Changes = dict[str, Any]
Command = Callable[..., None]

# What sets a field back to no limit, no suite, and so on.
NONE = "none"
# A choice, and what belongs to it: another one begins with its own defaults.
_CHOICES = (("method", "parameters"), ("optimizer", "optimizer_parameters"), ("gate.kind", "gate"))
_PARTS: dict[str, type[BaseModel]] = {"gate": Gate, "dare": Dare}
# Without this there is no dropping, and nothing to say of it.
_DARE = "dare.density"


@dataclass(frozen=True)
class Option:
    """
    One option.

    Attributes:
        field: what it sets.
        read: makes the field's value of what was typed.
        type: what typer reads.
        flag: what it is called; null: as its field.
        help: null: the field's description.
    """

    field: str
    read: Callable[[Any], Any]
    type: Any = str
    flag: str | None = None
    help: str | None = None

    @property
    def name(self) -> str:
        """The name of the command's parameter."""
        return self.field.replace(".", "_")

    def parameter(self) -> inspect.Parameter:
        """Return it as a parameter of a command."""
        flag = self.flag or f"--{self.name.replace('_', '-')}"
        said = typer.Option(flag, help=self.help or _described(self.field))
        # By keyword, so that it need not be typed in any order.
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[self.type | None, said],
        )


def _as_it_is(value: Any) -> Any:
    return value


def _number(text: str) -> float | str | None:
    return None if text == NONE else number_or_word(text)


def _word(text: str) -> str | None:
    return None if text == NONE else text


def _seconds(text: str) -> int | None:
    length = None if text == NONE else parse_duration(text)
    return None if length is None else int(length.total_seconds())


def _numbers(texts: Sequence[str]) -> list[float | str | None] | None:
    return None if list(texts) == [NONE] else [number_or_word(text) for text in texts]


def _weights(texts: Sequence[str]) -> dict[str, Any] | None:
    return None if list(texts) == [NONE] else pairs("--contributor-weight", texts, parsed=True)


def _screening(texts: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    """Return parameters by check; null stands for the default again."""
    if list(texts) == [NONE]:
        return None
    found: dict[str, dict[str, Any]] = {}
    for path, value in pairs("--screening", texts, parsed=True).items():
        check, _, parameter = path.partition(".")
        if not check or not parameter:
            raise InvalidRequest(
                f"--screening {path!r} is not CHECK.PARAMETER=VALUE.",
                hint="coldfusion-server checks lists checks and parameters.",
            )
        found.setdefault(check, {})[parameter] = None if value == "default" else value
    return found


def _or(word: str, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what reads as `read` does, but for a word that says: the default."""
    return lambda value: None if value in (word, [word]) else read(value)


def _pairs(flag: str) -> Callable[[Sequence[str]], dict[str, Any]]:
    return lambda texts: pairs(flag, texts, parsed=True)


OPTIONS = (
    Option("min_contributions", _as_it_is, int, help="A round never closes by itself with fewer."),
    Option(
        "max_contributions",
        _as_it_is,
        int,
        help="A round closes at once when it has this many.",
    ),
    Option(
        "deadline_seconds",
        _seconds,
        flag="--deadline",
        help="A round with its minimum closes after this: 24h, 30m; none: no deadline.",
    ),
    Option(
        "by_hand",
        _as_it_is,
        bool,
        "--by-hand/--by-policy",
        "Whether a round closes only when a maintainer says so.",
    ),
    Option("min_contributors", _as_it_is, int),
    Option("max_per_contributor", _number),
    Option("max_per_dataset", _number),
    Option("max_per_task", _number),
    Option("max_share_per_contributor", _number),
    Option("max_share_per_dataset", _number),
    Option("max_share_per_task", _number),
    Option(
        "contributor_weights",
        _weights,
        list[str],
        "--contributor-weight",
        "A contributor's weight, NAME=WEIGHT, others have 1; repeatable, and all are given at "
        "once. none: nobody has another.",
    ),
    Option("max_staleness", _as_it_is, int),
    Option("after_rollback", _as_it_is),
    Option("method", _as_it_is, help="Fusion method; see: coldfusion-server methods."),
    Option(
        "parameters",
        _pairs("--param"),
        list[str],
        "--param",
        "Parameter of the method, NAME=VALUE; repeatable.",
    ),
    Option(
        _DARE,
        _number,
        flag="--dare",
        help="Drop and rescale before the method: each value of an update is kept with this "
        "probability and divided by it; none: all are kept.",
    ),
    Option("dare.seed", _number),
    Option("staleness_exponent", _number),
    Option(
        "server_lr",
        _or("default", number_or_word),
        help="Factor of the fused update: a number, auto or default.",
    ),
    Option("server_lr_cap", _number),
    Option("optimizer", _as_it_is, help="Server optimizer; see: coldfusion-server methods."),
    Option(
        "optimizer_parameters",
        _pairs("--optimizer-param"),
        list[str],
        "--optimizer-param",
        "Parameter of the optimizer, NAME=VALUE; repeatable.",
    ),
    Option("pull", _as_it_is, float, help="Share of the way back to the pretrained model, 0 to 1."),
    Option("step_cap", _number),
    Option(
        "line_search",
        _numbers,
        list[str],
        help="A server learning rate to try, repeatable: a candidate of each is evaluated by the "
        "gate's suite, and the best goes on. none: no search.",
    ),
    Option("gate.kind", _as_it_is, flag="--gate"),
    Option("gate.suite", _word),
    Option("gate.max_relative_norm", _number),
    Option("gate.tolerance", _number),
    Option("gate.noise", _number),
    Option("gate.max_noise", _number),
    Option("gate.max_dataset_loss", _number),
    Option("gate.max_negative_flips", _number),
    Option("gate.min_evaluators", _number),
    Option(
        "gate.timeout_seconds",
        _seconds,
        flag="--gate-timeout",
        help="How long evaluations are waited for: 24h, 30m.",
    ),
    Option("gate.on_timeout", _word),
    Option(
        "screening",
        _screening,
        list[str],
        help="How a screening check goes about it, CHECK.PARAMETER=VALUE, repeatable; others stay "
        "as they are. VALUE default: its own default again; none alone: all defaults. See: "
        "coldfusion-server checks.",
    ),
    Option(
        "keep_contributions",
        _or("forever", number_or_word),
        help="Rounds, the newest, whose contributions' files are kept, 0: none; or forever.",
    ),
    Option(
        "encodings",
        _or("any", _as_it_is),
        list[str],
        "--encoding",
        "A form in which updates are taken, such as full, delta-int8 or lora; repeatable. any: all "
        "that there are.",
    ),
)


def with_policy(command: Command) -> Command:
    """Give a command all options of a policy; it gets what was typed as its `changes`."""
    signature = inspect.signature(command, eval_str=True)

    @wraps(command)
    def run(**given: Any) -> None:
        typed = {option: given.pop(option.name) for option in OPTIONS}
        # An option that may be repeated and was not given is an empty list.
        changes = {
            option.field: option.read(value)
            for option, value in typed.items()
            if value is not None and value != []
        }
        command(**given, changes=changes)

    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "changes":
            parameters += [option.parameter() for option in OPTIONS]
        else:
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=kind))
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def changed(before: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Return the values of a policy, after `changes` to those of `before`."""
    values = deepcopy(dict(before))
    for chosen, belonging in _CHOICES:
        if changes.get(chosen) not in (None, _value(before, chosen)):
            values[belonging] = {}
    for field, value in changes.items():
        part, _, name = field.rpartition(".")
        if part and values.get(part) is None:
            values[part] = {}
        target = values[part] if part else values
        old = target.pop(name, None)
        if field == "screening" and value is not None:
            value = _with_parameters(old or {}, value)
        if value is not None:
            target[name] = value
    if changes.get(_DARE, ...) is None:
        values.pop("dare", None)
    return values


def _with_parameters(
    before: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the parameters of screening with those given; what is null goes, by its default."""
    merged = {
        check: {**before.get(check, {}), **given.get(check, {})} for check in {**before, **given}
    }
    kept = {
        check: {name: value for name, value in parameters.items() if value is not None}
        for check, parameters in merged.items()
    }
    return {check: parameters for check, parameters in kept.items() if parameters}


def _value(values: Mapping[str, Any], field: str) -> Any:
    found: Any = values
    for part in field.split("."):
        found = found.get(part, {})
    return found


def _described(field: str) -> str:
    """Return a field's description as an option's help: a sentence, and its words for null."""
    part, _, name = field.rpartition(".")
    schema = _PARTS[part] if part else Policy
    text = (schema.model_fields[name].description or "").replace("null:", f"{NONE}:")
    return f"{text[:1].upper()}{text[1:]}."
