"""
Webhooks: made, shown, changed and deleted by the maintainers of the model that they are about.

Whoever made one does not matter afterwards: it belongs to the model. One of no model, which is sent
the events of all public ones, belongs to the admins. The events of a private model go to its own
webhooks alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, joinedload

from coldfusion_server.db.tables import DeliveryRow, ModelRow, WebhookRow
from coldfusion_server.events import audit, outbox
from coldfusion_server.events.webhooks.messages import new_secret
from coldfusion_server.events.webhooks.urls import check_dispatches, check_url, origin_of, shown
from coldfusion_server.services.context import Context
from coldfusion_server.services.lookup import find_model, searchable
from coldfusion_server.services.sealing import seal, unseal
from coldfusion_server.services.tokens import Principal, may, require, require_anywhere
from coldfusion_shared.errors import (
    ConfigurationError,
    InvalidRequest,
    QuotaExceeded,
    WebhookNotFound,
)
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.schemas.webhooks import (
    Webhook,
    WebhookChange,
    WebhookFormat,
    WebhookRequest,
    WebhookSecret,
)
from coldfusion_shared.webhooks import PENDING

# Of one model, or of none: each event is sent to all of them.
MOST = 20
# So long the secret before the present one signs, too, so that receivers can be told in peace.
OVERLAP = timedelta(hours=24)


@dataclass(frozen=True)
class Target:
    """
    What is kept encrypted.

    Attributes:
        url: where to post to.
        secret: to sign with.
        authorization: value of a header to send along; null: none.
        old_secret: the one before, which signs, too.
        old_until: until when, as ISO 8601.
    """

    url: str
    secret: str
    authorization: str | None = None
    old_secret: str | None = None
    old_until: str | None = None

    def secrets_at(self, now: datetime) -> list[str]:
        """Return what to sign with, the present secret first."""
        if self.old_secret is None or self.old_until is None:
            return [self.secret]
        is_good = now < datetime.fromisoformat(self.old_until)
        return [self.secret, self.old_secret] if is_good else [self.secret]


def create_webhook(
    ctx: Context, wanted: WebhookRequest, principal: Principal | None
) -> WebhookSecret:
    """
    Make a webhook. This is the only time that its secret can be seen.

    It is sent what happens from now on.

    Raises:
        Unauthenticated, Forbidden: the caller is no maintainer of the model, or no admin.
        ModelNotFound: there is no such model.
        InvalidRequest: a webhook cannot have that address, or that format.
        QuotaExceeded: the model has as many as it may have.
    """
    who = _maintainer(principal, wanted.model)
    url = check_url(wanted.url, ctx.settings.webhook_private)
    target = Target(wanted.url, new_secret(), wanted.authorization)
    _check_format(url, wanted.format, target)
    with ctx.database.write() as session:
        model = None if wanted.model is None else find_model(session, wanted.model, who)
        _check_number(session, model)
        row = WebhookRow(
            id=secrets.token_hex(8),
            model_id=None if model is None else model.id,
            origin=origin_of(url)[:300],
            events=_patterns(wanted.events),
            format=wanted.format.value,
            active=True,
            cursor=outbox.newest(session),
            failures=0,
            # Whoever is at the data folder is the operator, and has no token.
            contributor_id=who.contributor_id if who.token_id else None,
            created_at=ctx.now(),
        )
        _put(ctx, row, target)
        session.add(row)
        session.flush()
        session.refresh(row)
        audit.note(
            session, ctx.now(), who, "webhook.created", model=wanted.model, subject=row.id,
            origin=row.origin, events=row.events, format=row.format,
            authorization=target.authorization is not None,
        )  # fmt: skip
        return WebhookSecret(webhook=_shown(ctx, session, row), secret=target.secret)


def list_webhooks(
    ctx: Context, principal: Principal | None, model: str | None = None
) -> list[Webhook]:
    """
    Return the webhooks that the caller looks after, of all models or of one, the oldest first.

    Raises:
        Unauthenticated, Forbidden: the caller is no maintainer.
        ModelNotFound: there is no such model.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    query = select(WebhookRow).options(
        joinedload(WebhookRow.model), joinedload(WebhookRow.contributor)
    )
    with ctx.database.read() as session:
        if model is not None:
            row = find_model(session, model, who)
            require(who, Role.MAINTAINER, row.name)
            query = query.where(WebhookRow.model_id == row.id)
        query = query.order_by(WebhookRow.created_at, WebhookRow.id)
        rows = [row for row in session.scalars(query) if looks_after(who, row)]
        waiting = _waiting(session)
        return [_to_schema(ctx, row, waiting.get(row.id, 0)) for row in rows]


def get_webhook(ctx: Context, identity: str, principal: Principal | None) -> Webhook:
    """Return one webhook; raises `WebhookNotFound`, also where it is none of the caller's."""
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.read() as session:
        row = find_webhook(session, identity, who)
        return _shown(ctx, session, row)


def change_webhook(
    ctx: Context, identity: str, wanted: WebhookChange, principal: Principal | None
) -> Webhook:
    """
    Change what `wanted` has of a webhook.

    One that is made active again is sent what was waiting for it, and what happens from now on. An
    Authorization header does not go along to another server: whoever changes the address could
    have it sent to himself.

    Raises:
        WebhookNotFound: there is none of that id, or it is none of the caller's.
        InvalidRequest: a webhook cannot have that address, or that format.
        ConfigurationError: what is encrypted cannot be read any more.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        row = find_webhook(session, identity, who, lock=True)
        before = target_of(ctx, row)
        target = _changed(before, wanted)
        url = check_url(target.url, ctx.settings.webhook_private)
        if origin_of(url) != origin_of(httpx.URL(before.url)) and not _gives_header(wanted):
            target = replace(target, authorization=None)
        changed = _change(session, row, wanted)
        _check_format(url, WebhookFormat(row.format), target)
        if target != before:
            changed["target"] = sorted(
                name for name in ("url", "authorization")
                if getattr(target, name) != getattr(before, name)
            )  # fmt: skip
            row.origin = origin_of(url)[:300]
            _put(ctx, row, target)
        if changed:
            audit.note(
                session, ctx.now(), who, "webhook.changed", model=_model(row), subject=row.id,
                origin=row.origin, **changed,
            )  # fmt: skip
        session.flush()
        return _shown(ctx, session, row)


def rotate_secret(ctx: Context, identity: str, principal: Principal | None) -> WebhookSecret:
    """
    Give a webhook a new secret, shown this once. The one before signs, too, for `OVERLAP`.

    Raises:
        WebhookNotFound: there is none of that id, or it is none of the caller's.
        ConfigurationError: what is encrypted cannot be read any more.
    """
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        row = find_webhook(session, identity, who, lock=True)
        before = target_of(ctx, row)
        until = (ctx.now() + OVERLAP).isoformat()
        target = replace(before, secret=new_secret(), old_secret=before.secret, old_until=until)
        _put(ctx, row, target)
        audit.note(
            session, ctx.now(), who, "webhook.rotated", model=_model(row), subject=row.id,
            old_until=until,
        )  # fmt: skip
        session.flush()
        return WebhookSecret(webhook=_shown(ctx, session, row), secret=target.secret)


def delete_webhook(ctx: Context, identity: str, principal: Principal | None) -> None:
    """Delete a webhook and what was told of its deliveries; raises `WebhookNotFound`."""
    who = require_anywhere(principal, Role.MAINTAINER)
    with ctx.database.write() as session:
        row = find_webhook(session, identity, who, lock=True)
        model, origin = _model(row), row.origin
        session.execute(delete(DeliveryRow).where(DeliveryRow.webhook_id == row.id))
        session.delete(row)
        session.flush()
        audit.note(
            session, ctx.now(), who, "webhook.deleted", model=model, subject=identity, origin=origin
        )


def find_webhook(
    session: Session, identity: str, who: Principal, *, lock: bool = False
) -> WebhookRow:
    """Return the row of a webhook that `who` looks after; raises `WebhookNotFound`."""
    query = select(WebhookRow).where(WebhookRow.id == searchable(identity))
    row = session.scalar(query.with_for_update(of=WebhookRow) if lock else query)
    if row is None or not looks_after(who, row):
        raise WebhookNotFound(
            f"There is no webhook {identity[:40]!r}, or you do not look after it.",
            hint="See them with: coldfusion-server webhook list, or GET /v1/webhooks",
        )
    return row


def looks_after(who: Principal, row: WebhookRow) -> bool:
    """Return whether somebody may see and change a webhook."""
    if row.model is None:
        return may(who, Role.ADMIN)
    return may(who, Role.MAINTAINER, row.model.name)


def target_of(ctx: Context, row: WebhookRow) -> Target:
    """Return what is kept encrypted; raises `ConfigurationError` where it cannot be read."""
    return Target(**unseal(ctx, row.id, row.sealed))


def _put(ctx: Context, row: WebhookRow, target: Target) -> None:
    row.sealed = seal(ctx, row.id, asdict(target))


def _maintainer(principal: Principal | None, model: str | None) -> Principal:
    if model is None:
        return require(principal, Role.ADMIN)
    return require(principal, Role.MAINTAINER, model)


def _check_format(url: httpx.URL, form: WebhookFormat, target: Target) -> None:
    if form != WebhookFormat.GITHUB:
        return
    check_dispatches(url)
    if target.authorization is None:
        raise InvalidRequest(
            "GitHub takes a repository_dispatch only with an Authorization header.",
            hint='Give authorization: "Bearer " and a fine-grained token that may write the '
            "repository's contents.",
        )


def _check_number(session: Session, model: ModelRow | None) -> None:
    of = WebhookRow.model_id.is_(None) if model is None else WebhookRow.model_id == model.id
    number = session.scalar(select(func.count()).select_from(WebhookRow).where(of)) or 0
    if number >= MOST:
        raise QuotaExceeded(
            f"There are {number} webhooks already, and {MOST} are the most.",
            hint="Delete one that nobody needs any more.",
        )


def _changed(before: Target, wanted: WebhookChange) -> Target:
    target = before if wanted.url is None else replace(before, url=wanted.url)
    if "authorization" in wanted.model_fields_set:
        target = replace(target, authorization=wanted.authorization)
    return target


def _gives_header(wanted: WebhookChange) -> bool:
    return "authorization" in wanted.model_fields_set


def _change(session: Session, row: WebhookRow, wanted: WebhookChange) -> dict[str, Any]:
    """Change what is not encrypted; return what is another one now."""
    changed: dict[str, Any] = {}
    if wanted.events is not None and _patterns(wanted.events) != row.events:
        row.events = changed["events"] = _patterns(wanted.events)
    if wanted.format is not None and wanted.format.value != row.format:
        row.format = changed["format"] = wanted.format.value
    if wanted.active is not None and wanted.active != row.active:
        row.active = changed["active"] = wanted.active
        row.paused_at = None
        if row.active:
            row.cursor = outbox.newest(session)
            row.failures, row.failing_since = 0, None
    return changed


def _patterns(wanted: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(wanted))


def _model(row: WebhookRow) -> str | None:
    return None if row.model is None else row.model.name


def _shown(ctx: Context, session: Session, row: WebhookRow) -> Webhook:
    return _to_schema(ctx, row, _waiting(session, row).get(row.id, 0))


def _waiting(session: Session, row: WebhookRow | None = None) -> dict[str, int]:
    """Return how many deliveries are still to be made, by webhook; of all of them, or of one."""
    query = select(DeliveryRow.webhook_id, func.count()).where(DeliveryRow.state.in_(PENDING))
    if row is not None:
        query = query.where(DeliveryRow.webhook_id == row.id)
    found = session.execute(query.group_by(DeliveryRow.webhook_id))
    return {hook: number for hook, number in found}


def _to_schema(ctx: Context, row: WebhookRow, waiting: int) -> Webhook:
    try:
        target = target_of(ctx, row)
    except ConfigurationError:
        target = None
    return Webhook(
        id=row.id,
        model=_model(row),
        url=None if target is None else shown(httpx.URL(target.url)),
        events=row.events,
        format=WebhookFormat(row.format),
        has_authorization=target is not None and target.authorization is not None,
        active=row.active,
        paused_at=row.paused_at,
        failures=row.failures,
        failing_since=row.failing_since,
        waiting=waiting,
        created_by=None if row.contributor is None else row.contributor.name,
        created_at=row.created_at,
    )
