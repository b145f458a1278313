"""What is refused, or warned of, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_client.api import Api
from coldfusion_client.bases import base_file
from coldfusion_client.evaluation.finding import Found
from coldfusion_client.evaluation.order import Order, Place
from coldfusion_client.permission import check_evaluator
from coldfusion_shared.errors import BadModel, InvalidRequest, SuiteChanged, SuiteNotFound
from coldfusion_shared.schemas.evaluations import MOST_SEEDS, Suite
from coldfusion_shared.weights.layout import CONFIG_FILE, weight_files

if TYPE_CHECKING:
    from coldfusion_shared.evaluate.suite import LoadedSuite

# By this protocol gates measure.
GATE_PROTOCOL = "frozen"


def ready(order: Order, place: Place) -> LoadedSuite:
    """Return the suite, when all is refused that can be refused before a model is looked for."""
    _check_order(order, place)
    loaded = _read(order, place)
    if order.post:
        _check_known(place.source.api, loaded.suite)
    return loaded


def check_found(found: Sequence[Found], order: Order, loaded: LoadedSuite, place: Place) -> None:
    """Refuse scores that cannot be compared, and models that the protocol cannot measure."""
    _check_scores(found, order, loaded)
    _check_models(found, order, loaded, place)


def warn_of_gate(model: str, number: int, order: Order, suite: Suite, place: Place) -> None:
    """Say so before the work where the gate of round `number` does not look at such scores."""
    api = place.source.api
    # A round keeps the policy by which it was closed; before its gate has looked, the model's is
    # what is known.
    gate = api.round(model, number).gate or api.model(model).policy.gate
    if order.post and (gate.suite, order.protocol) != (suite.name, GATE_PROTOCOL):
        asked = "none" if gate.suite is None else f"{gate.suite!r} by {GATE_PROTOCOL}"
        place.reporter.warn(
            f"The gate of round {number} of {model} asks for {asked}: it may not look at scores of "
            f"{suite.name!r} by {order.protocol}."
        )


def _check_order(order: Order, place: Place) -> None:
    from coldfusion_shared.evaluate.protocols import protocol_named

    protocol_named(order.protocol)
    if not 1 <= order.seeds <= MOST_SEEDS:
        raise InvalidRequest(
            f"{order.seeds} seeds cannot be taken.", hint=f"Take 1 to {MOST_SEEDS}, such as 3."
        )
    if order.post and any(isinstance(one, Path) for one in order.subjects):
        raise InvalidRequest(
            "Only scores of a server's own bases can be posted.",
            hint="Leave --post out to measure a folder of this machine.",
        )
    if order.post:
        named = [one.model for one in order.subjects if not isinstance(one, Path)]
        check_evaluator(place.source.api.whoami(), named)


def _read(order: Order, place: Place) -> LoadedSuite:
    from coldfusion_shared.evaluate.suite import pin, read_suite

    read = pin if order.pin else read_suite
    return read(order.suite, place.reporter.say)


def _check_known(api: Api, suite: Suite) -> None:
    try:
        known = api.suite(suite.name)
    except SuiteNotFound:
        return
    if known.digest == suite.digest():
        return
    changed = [repr(one.name) for one in suite.datasets if one not in known.suite.datasets]
    raise SuiteChanged(
        f"{api.server} knows another suite {suite.name!r}, by {known.registered_by}: "
        f"{'other data or limits of ' + ', '.join(changed) if changed else 'other settings'}.",
        hint="Scores of the two cannot be compared. Use the same file and data, or give yours "
        "another name.",
    )


def _check_scores(found: Sequence[Found], order: Order, loaded: LoadedSuite) -> None:
    """Refuse scores of earlier times that nothing here can be compared with."""
    from coldfusion_shared.evaluate.alike import check_alike, check_manner, check_of_suite

    known = [(one.name, one.scores) for one in found if one.scores is not None]
    for name, scores in known:
        check_of_suite(scores, loaded.suite, name)
        if len(known) < len(found):
            check_manner(scores, order.protocol, range(order.seeds), name)
    if len(known) == len(found) > 1:
        check_alike(*(scores for _, scores in known))


def _check_models(found: Sequence[Found], order: Order, loaded: LoadedSuite, place: Place) -> None:
    """
    Refuse what the protocol cannot measure, before weights are brought; say what it costs.

    A candidate is of its base's kind, which is beside it.
    """
    from coldfusion_shared.evaluate.protocols import protocol_named
    from coldfusion_shared.evaluate.runner import pool_notes

    protocol = protocol_named(order.protocol)
    unknown = [one for one in found if one.scores is None and one.candidate is None]
    for one in unknown:
        config = _config(one, place)
        for data in loaded.datasets:
            protocol.check(data, config)
    for note in pool_notes(loaded, order.protocol) if unknown else []:
        place.reporter.say(note)


def _config(found: Found, place: Place) -> Path:
    """Return the config.json of a base, or of a folder that has weights, too."""
    if found.base is None:
        assert found.folder is not None, "what has no scores yet is a base or a folder"
        weight_files(found.folder)
        return found.folder / CONFIG_FILE
    config = base_file(place.source, found.base, CONFIG_FILE)
    if config is None:
        raise BadModel(
            f"{found.name} comes without a {CONFIG_FILE}, so that it cannot be measured.",
            hint="Its maintainer has to publish a base with one.",
        )
    return config
