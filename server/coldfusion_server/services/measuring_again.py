"""Having a base measured once more by the Repository's own evaluator, as a maintainer decides."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from coldfusion_server.db.tables import ContributorRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.services import evaluation_tries
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_base, find_model
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.schemas.evaluations import OWN_EVALUATOR, EvaluateRequest, EvaluationAsked
from coldfusion_shared.schemas.tokens import Role

# Nobody's id: whoever has never run an evaluator here has none that signs.
NOBODY = -1


def ask(
    ctx: Context, name: str, version: str, wanted: EvaluateRequest, principal: Principal | None
) -> EvaluationAsked:
    """
    Have a base measured again, or tried again after it was given up; it waits for an evaluator.

    Scores that come out the same are not posted a second time. Where it waits already nothing
    happens, so that it may be asked for twice.

    Raises:
        ModelNotFound, BaseNotFound: the model has no such base.
        Forbidden: the caller is no maintainer.
    """
    who = require(principal, Role.MAINTAINER, name)
    with ctx.database.write() as session:
        model = find_model(session, name, principal)
        # Of two who ask at once, one comes second: as a change of the policy locks it.
        session.refresh(model, with_for_update={"key_share": True})
        base = find_base(session, model, version)
        found, changed = (
            f"v{base.number}",
            evaluation_tries.ask_again(session, base, _evaluator(session)),
        )
        if changed:
            data = {"version": found, "by": who.name}
            outbox.append(session, ctx.now(), "evaluation.requested", name, data)
            audit.note(
                session, ctx.now(), who, "evaluation.requested", model=name, subject=found,
                reason=wanted.reason,
            )  # fmt: skip
    return EvaluationAsked(version=found, changed=bool(changed), sentence=_told(found, changed))


def _evaluator(session: Session) -> int:
    query = select(ContributorRow.id).where(ContributorRow.name == OWN_EVALUATOR)
    return session.scalar(query) or NOBODY


def _told(version: str, changed: bool | None) -> str:
    if changed is None:
        return (
            f"{version} waits to be measured: an evaluator of this Repository begins with it by "
            "itself, as soon as one runs (coldfusion-server up --evaluate FILE)."
        )
    if not changed:
        return f"{version} waits to be measured once more already; nothing was changed."
    return f"{version} waits to be measured once more by the Repository's own evaluator."
