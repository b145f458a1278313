"""Models: made from a pretrained model's folder, listed, described."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import distinct, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributionRow, ModelRow, RoundRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.services import bases, cards, head_moves, paging, rounds, suites
from coldfusion_server.services.context import SOFTWARE, Context
from coldfusion_server.services.garbage import check_stored
from coldfusion_server.services.lookup import find_model, policy_of, readable
from coldfusion_server.services.references import refer
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.errors import InvalidRequest, ModelExists, SuiteNotFound
from coldfusion_shared.fusion.methods import CoordinateMethod
from coldfusion_shared.fusion.plan import kinds
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.rounds.measured import with_flips
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.common import Page, check_model_name
from coldfusion_shared.schemas.models import Model, Policy
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.screening import check_parameters
from coldfusion_shared.screening.usefulness import wanted
from coldfusion_shared.weights.codecs import discover

# What strangers may contribute to is not to be moved by one of them alone, however long his update.
PUBLIC_METHOD = "norm_clipped_mean"


def create_model(
    ctx: Context, name: str, folder: Path, source: str, policy: Policy, *, public: bool
) -> Model:
    """
    Make a model whose v0 is the pretrained model in `folder`, and open its first round.

    Args:
        ctx: the service's surroundings.
        name: owner/name.
        folder: a transformers folder; it is copied into the store.
        source: where it came from, for the manifest and the card.
        policy: how its rounds close and fuse.
        public: whether bases can be read without a token.

    Raises:
        InvalidRequest: the name or the policy cannot be used.
        SuiteNotFound: nobody has registered the suite of the policy's gate.
        BadModel, MalformedWeights, NonFiniteWeights: the folder cannot serve as a base.
        ModelExists: the name is taken.
    """
    _check_new(ctx, name)
    check_settable(ctx, policy)
    now = ctx.now()
    files = bases.store_folder(ctx, folder)
    manifest = Manifest(
        model=name,
        version="v0",
        created_at=now,
        files=files,
        parent=None,
        round=None,
        source=source,
        software=SOFTWARE,
    )
    manifest = cards.with_card(ctx, manifest, cards.of_folder(folder, source))
    try:
        with ctx.database.write() as session:
            refer(session)
            check_stored(ctx, manifest.files)
            model = ModelRow(
                name=name, public=public, policy=policy.model_dump(), created_at=now, current=0
            )
            session.add(model)
            session.flush()
            outbox.append(session, now, "model.created", name, {"public": public})
            bases.add_base(ctx, session, model, manifest)
            rounds.open_next(session, model, now)
            audit.note(
                session, now, audit.OPERATOR, "model.created", model=name, public=public,
                source=source, policy=policy.model_dump(mode="json"),
            )  # fmt: skip
            return to_schema(session, model)
    except IntegrityError:
        raise _taken(name) from None


def get_model(ctx: Context, name: str, principal: Principal | None) -> Model:
    """Return the model called `name`; raises `ModelNotFound`."""
    with ctx.database.read() as session:
        return to_schema(session, find_model(session, name, principal))


def list_models(ctx: Context, principal: Principal | None, window: paging.Window) -> Page[Model]:
    """Return the models that `principal` may read."""
    query = select(ModelRow).where(readable(principal))
    with ctx.database.read() as session:
        return paging.page(session, query, ModelRow.id, window, lambda row: to_schema(session, row))


def set_policy(ctx: Context, name: str, policy: Policy, principal: Principal | None) -> Model:
    """
    Set how the model's rounds close and fuse, from its open round on.

    Raises:
        InvalidRequest, UnknownName: rounds of that policy could not be fused; nothing is changed.
        SuiteNotFound: nobody has registered the suite of its gate.
        Forbidden: the caller is no maintainer.
    """
    return change_policy(ctx, name, lambda _: policy, principal)


def change_policy(
    ctx: Context, name: str, change: Callable[[Policy], Policy], principal: Principal | None
) -> Model:
    """
    Set what `change` makes of the model's policy; raises what it raises, and as `set_policy`.

    Nobody else changes the policy meanwhile, so that of two changes at once none is lost.
    """
    who = require(principal, Role.MAINTAINER, name)
    with ctx.database.write() as session:
        row = find_model(session, name, principal)
        # As an update locks it: whoever adds rows of the model does not wait for it.
        session.refresh(row, with_for_update={"key_share": True})
        before = policy_of(row)
        policy = change(before)
        check_policy(policy)
        _check_gate(session, policy)
        changed = audit.differences(before, policy)
        row.policy = policy.model_dump()
        data = {"policy": policy.model_dump(mode="json")}
        outbox.append(session, ctx.now(), "model.policy", name, data)
        audit.note(session, ctx.now(), who, "model.policy", model=name, changed=changed)
        session.flush()
        return to_schema(session, row)


def make_policy(values: dict[str, Any]) -> Policy:
    """Return the policy of `values`, nulls left out; raises `InvalidRequest`."""
    try:
        given = {name: value for name, value in values.items() if value is not None}
        return Policy.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the policy"
        what = first["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"The policy cannot be used: {where}: {what}.") from None


def check_policy(policy: Policy) -> None:
    """
    Check that rounds of `policy` can be fused.

    Raises:
        UnknownName: there is no such method, optimizer, encoding or screening check.
        InvalidRequest: a parameter is out of range, or a round may have too few contributions.
    """
    for name in policy.encodings or ():
        discover()[name]
    _check_screening(policy)
    recipe = policy.recipe()
    kind = kinds(recipe)
    fewest, most = kind.method.minimum(kind.parameters), kind.method.maximum
    if policy.min_contributions < fewest:
        raise InvalidRequest(
            f"The fusion method {recipe.method!r} needs at least {fewest} contributions with these "
            f"parameters; min_contributions is {policy.min_contributions}."
        )
    if most is not None and policy.max_contributions != most:
        raise InvalidRequest(
            f"The fusion method {recipe.method!r} takes {most} contributions; "
            f"set max_contributions to {most}."
        )
    if not kind.method.uses_prior and any(one != 1 for one in policy.contributor_weights.values()):
        raise InvalidRequest(
            f"The fusion method {recipe.method!r} takes no weights, and contributor_weights has "
            "others than 1.",
            hint="Leave contributor_weights out, or use a method that takes weights: weighted_mean "
            "does, and norm_clipped_mean, ties and others.",
        )
    if isinstance(kind.method, CoordinateMethod):
        lacking = "Fisher information" if kind.method.needs_fisher else None
    else:
        lacking = "a score of every candidate" if kind.method.needs_score else None
    if lacking is not None:
        raise InvalidRequest(
            f"The fusion method {recipe.method!r} needs {lacking}, which a round does not have.",
            hint="coldfusion-server fuse can use it; coldfusion-server methods lists the others.",
        )


def check_settable(ctx: Context, policy: Policy) -> None:
    """Check all that `set_policy` does, and change nothing; raises what that raises."""
    check_policy(policy)
    with ctx.database.read() as session:
        _check_gate(session, policy)


def _check_screening(policy: Policy) -> None:
    """Check that there are such checks and parameters, and a suite where one is measured by."""
    check_parameters(policy.screening)
    if wanted(policy.screening) is not None and policy.gate.suite is None:
        raise InvalidRequest(
            "The screening check 'usefulness' measures by the gate's suite, and there is none.",
            hint="Give the model a gate: --gate suite --gate-suite NAME; or leave "
            "usefulness.enabled out.",
        )


def _check_gate(session: Session, policy: Policy) -> None:
    """Check that the gate's suite is registered, and can tell what the gate asks for."""
    gate = policy.gate
    if gate.suite is None:
        return
    try:
        suite = suites.to_schema(suites.find_suite(session, gate.suite)).suite
    except SuiteNotFound:
        raise SuiteNotFound(
            f"The gate's suite {gate.suite!r} is not registered here.",
            hint="Register it first: start the server with --evaluate FILE, or let an evaluator "
            "run: coldfusion-client evaluate MODEL --suite FILE --post. A new model may get its "
            "gate later: coldfusion-server model policy MODEL --gate suite --gate-suite NAME",
        ) from None
    if gate.max_negative_flips is not None and not with_flips(suite):
        raise InvalidRequest(
            f"The gate limits negative flips, and no data set of the suite {gate.suite!r} has any: "
            "none is a classification, so no candidate would ever pass.",
            hint="Leave max_negative_flips out, or name a suite with classification.",
        )


def to_schema(session: Session, row: ModelRow) -> Model:
    """Return what the API shows of a model."""
    open_round = session.scalar(
        select(RoundRow).where(RoundRow.model_id == row.id, RoundRow.state == RoundState.OPEN)
    )
    accepted = 0
    if open_round is not None:
        accepted = rounds.count(session, open_round.id, ContributionState.ACCEPTED)
    quarantined = session.scalar(
        select(func.count()).where(
            ContributionRow.model_id == row.id,
            ContributionRow.state == ContributionState.QUARANTINED,
        )
    )
    contributors = session.scalar(
        select(func.count(distinct(ContributionRow.contributor_id))).where(
            ContributionRow.model_id == row.id
        )
    )
    return Model(
        name=row.name,
        public=row.public,
        created_at=row.created_at,
        current=f"v{row.current}",
        newest=f"v{head_moves.newest(session, row)}",
        moved=head_moves.last_move(session, row),
        policy=policy_of(row),
        open_round=None if open_round is None else open_round.number,
        accepted=accepted,
        quarantined=quarantined or 0,
        contributors=contributors or 0,
    )


def _check_new(ctx: Context, name: str) -> None:
    """Refuse before gigabytes are copied."""
    try:
        check_model_name(name)
    except ValueError as error:
        raise InvalidRequest(f"{name[:100]!r} cannot be a model's name: {error}.") from None
    with ctx.database.read() as session:
        if session.scalar(select(ModelRow.id).where(ModelRow.name == name)) is not None:
            raise _taken(name)


def _taken(name: str) -> ModelExists:
    return ModelExists(
        f"There is a model {name} already.",
        hint="Choose another name; bases are immutable and names are never used again.",
    )
