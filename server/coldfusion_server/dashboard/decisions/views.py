"""
Decisions by form: shown, asked once, done.

A form is posted twice: filled in it is answered by a page that says what will happen, and from
there with `confirm` it is done. Then the browser goes to the page of what was decided on, which
says what came of it. Nothing is kept on the way: the page that asks has all values in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from coldfusion_server.api.dependencies import BaseUrl, Ctx, ModelPath, Who
from coldfusion_server.api.errors import STATUS
from coldfusion_server.api.session import session_token_id
from coldfusion_server.dashboard import said
from coldfusion_server.dashboard.decisions import catalogue, difference, forms, subjects, tokens
from coldfusion_server.dashboard.decisions.catalogue import Decision
from coldfusion_server.dashboard.decisions.difference import Row
from coldfusion_server.dashboard.decisions.forms import Field, Sent
from coldfusion_server.dashboard.decisions.outcomes import Outcome, Wish
from coldfusion_server.dashboard.decisions.sections import sections
from coldfusion_server.dashboard.decisions.subjects import Kind
from coldfusion_server.dashboard.login import is_https
from coldfusion_server.dashboard.posting import check_same_site, read_form
from coldfusion_server.dashboard.rendering import page
from coldfusion_server.services import replays
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal, require
from coldfusion_shared.errors import ColdFusionError, Forbidden, StateConflict, Unauthenticated
from coldfusion_shared.schemas.tokens import Role

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

READ = ["GET", "HEAD"]
# Values in one form: a box for each of many contributions is the most.
MOST_VALUES = 2000
HINT = "Go back to the page that it is about, and decide there."
# Fields of every form beside those of its decision, none of which begins so.
TOKEN, SHOWN, CONFIRM, CHANGE = "_token", "_shown", "_confirm", "_change"
CHANGED = "Somebody else has changed this since it was shown to you. Look at what would change now."
SAME = "Nothing would change: this is how it is already."


async def _sent(request: Request) -> dict[str, list[str]]:
    return await read_form(request, MOST_VALUES)


Posted = Annotated[dict[str, list[str]], Depends(_sent)]


@dataclass(frozen=True)
class _Visit:
    """A maintainer at one of the forms."""

    request: Request
    decision: Decision
    wish: Wish
    session: str

    @property
    def item(self) -> Any:
        return self.wish.subject.item

    @property
    def address(self) -> str:
        return f"{self.wish.subject.forms}/{self.decision.name}"

    @property
    def fields(self) -> tuple[Field, ...]:
        return forms.fields(self.decision.request, self.decision.fixed(self.item))

    def written(self, values: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return how values of the decision's model stand in the form, lists of boxes apart."""
        found = forms.written(self.fields, values)
        for name in self.decision.choices:
            found[name] = list(values.get(name, ()))
        return found


@router.api_route("/decide/models/{owner}/{name}/replays", methods=READ)
def replays_(
    request: Request, ctx: Ctx, who: Who, name: ModelPath, part: str | None = None
) -> Response:
    """List the model's replays, with what they would change, for maintainers."""
    if _session(request, ctx, who) is None:
        return _to_login(request)
    assert who is not None, "a session is somebody's"
    model = subjects.find(ctx, who, "model", request.path_params)
    found = replays.list_replays(ctx, name, who)
    template = "parts/replays.html" if part == "replays" else "replays.html"
    return page(request, template, model=model.item, replays=found)


def _form_of(kind: Kind) -> Callable[..., Response]:
    def show(request: Request, ctx: Ctx, who: Who, what: str) -> Response:
        """Show a form, or that there is nothing to decide."""
        visit = _visit(request, ctx, who, kind, what)
        if visit is None:
            return _to_login(request)
        if request.url.path != visit.address:
            return RedirectResponse(visit.address, 303)
        decision, item = visit.decision, visit.item
        if not decision.offered(item):
            return _over(visit)
        if not visit.fields:
            return _question(visit, {}, decision.request())
        filled = decision.filled(item, request.query_params)
        return _form(visit, visit.written(filled), _digest(visit))

    return show


def _deed_of(kind: Kind) -> Callable[..., Response]:
    def decide(
        request: Request, ctx: Ctx, who: Who, url: BaseUrl, sent: Posted, what: str
    ) -> Response:
        """Ask whether what was filled in is to be done; do it where that was asked."""
        check_same_site(request, url, HINT)
        visit = _visit(request, ctx, who, kind, what)
        if visit is None:
            return _to_login(request)
        if request.url.path != visit.address:
            # What is called open, or latest, is another one the second time.
            return RedirectResponse(visit.address, 303)
        tokens.check(ctx, visit.session, _one(sent, TOKEN))
        outcome = _answered(visit, sent)
        if isinstance(outcome, Response):
            return outcome
        response = RedirectResponse(outcome.page, 303)
        said.say(
            ctx, response, visit.session, outcome.page, outcome.sentence,
            secure=is_https(request, url),
        )  # fmt: skip
        return response

    return decide


for _kind, _address in subjects.ADDRESSES.items():
    router.add_api_route(f"{_address}/{{what}}", _form_of(_kind), methods=READ, name=_kind)
    router.add_api_route(f"{_address}/{{what}}", _deed_of(_kind), methods=["POST"], name=_kind)


def _visit(
    request: Request, ctx: Context, who: Principal | None, kind: Kind, what: str
) -> _Visit | None:
    """
    Return who is where; null: whoever it is has to log in first.

    Raises:
        HTTPException: there is no such decision.
        Forbidden: who asks is no maintainer of the model.
    """
    session = _session(request, ctx, who)
    if session is None or who is None:
        return None
    decision = catalogue.BY_NAME.get((kind, what))
    if decision is None:
        raise HTTPException(404, "Not Found")
    subject = subjects.find(ctx, who, kind, request.path_params)
    require(who, Role.MAINTAINER, subject.model or None)
    return _Visit(request, decision, Wish(ctx, who, subject), session)


def _session(request: Request, ctx: Context, who: Principal | None) -> str | None:
    """Return the session in which `who` asks; null: it is by none, but by a token of a program."""
    session = session_token_id(ctx, request.headers.get("cookie", ""))
    return session if who is not None and who.token_id == session else None


def _to_login(request: Request) -> Response:
    query = request.url.query if request.method in READ else ""
    target = f"{request.url.path}?{query}" if query else request.url.path
    return RedirectResponse(f"/login?next={quote(target, safe='/')}", 303)


def _answered(visit: _Visit, sent: Sent) -> Outcome | Response:
    """Return what came of what was posted, or the page that asks, or says what is wrong."""
    decision, asked = visit.decision, CONFIRM in sent
    if CHANGE in sent:
        return _form(visit, sent, _one(sent, SHOWN))
    if not asked and not decision.offered(visit.item):
        return _over(visit)
    wanted, faults = _wanted(visit, sent)
    if wanted is None:
        return _form(visit, sent, _one(sent, SHOWN), faults=faults)
    try:
        if decision.check is not None:
            decision.check(visit.wish.ctx, wanted)
        if decision.before is not None:
            return _replaced(visit, sent, wanted, decision.before(visit.item))
        return decision.do(visit.wish, wanted) if asked else _question(visit, sent, wanted)
    except (Forbidden, Unauthenticated):
        raise
    except ColdFusionError as error:
        if STATUS[error.code] >= 500:
            raise
        return _form(visit, sent, _one(sent, SHOWN), problem=error)


def _replaced(
    visit: _Visit, sent: Sent, wanted: BaseModel, current: BaseModel
) -> Outcome | Response:
    """Put `wanted` in the place of `current`, or ask; ask anew where another one was shown."""
    rows = difference.rows(current, wanted)
    shown, now = _one(sent, SHOWN), difference.digest(current)
    if not rows:
        if CONFIRM in sent:
            return Outcome(SAME, visit.wish.subject.page)
        return _form(visit, sent, now, notice=SAME)
    if shown != now:
        return _question(visit, sent, wanted, rows=rows, shown=now, changed=True)
    if CONFIRM not in sent:
        return _question(visit, sent, wanted, rows=rows, shown=now)
    try:
        return visit.decision.do(replace(visit.wish, shown=shown), wanted)
    except StateConflict:
        # It was changed at this very moment.
        return _answered(_anew(visit), sent)


def _anew(visit: _Visit) -> _Visit:
    wish = visit.wish
    found = subjects.find(wish.ctx, wish.who, visit.decision.kind, visit.request.path_params)
    return replace(visit, wish=replace(wish, subject=found))


def _wanted(visit: _Visit, sent: Sent) -> tuple[BaseModel | None, dict[str, str]]:
    """Return what was filled in, or null, and what is wrong with it."""
    values, faults = forms.read(visit.fields, sent)
    if faults:
        return None, faults
    values |= visit.decision.fixed(visit.item)
    return forms.validated(visit.decision.request, visit.fields, values)


def _form(
    visit: _Visit,
    values: Sent,
    shown: str,
    *,
    faults: Mapping[str, str] | None = None,
    problem: ColdFusionError | None = None,
    notice: str | None = None,
) -> Response:
    """Return the page with the form, as it was filled in, and what is wrong with that."""
    status = 422 if faults else 200 if problem is None else STATUS[problem.code]
    fields = visit.fields
    return _page(
        visit,
        "decide.html",
        status,
        sections=sections(fields, visit.decision.order),
        labels={field.name: field.label for field in forms.leaves(fields)},
        values=values,
        faults=faults or {},
        problem=problem,
        notice=notice,
        shown=shown,
        known=visit.decision.known(),
        choices={name: offer(visit.wish) for name, offer in visit.decision.choices.items()},
    )


def _question(
    visit: _Visit,
    sent: Sent,
    wanted: BaseModel,
    *,
    rows: Sequence[Row] = (),
    shown: str = "",
    changed: bool = False,
) -> Response:
    """Return the page that says what will happen, and asks; `changed`: since it was shown."""
    given = [
        (field, sent[field.name]) for field in forms.leaves(visit.fields) if field.name in sent
    ]
    return _page(
        visit,
        "decide_question.html",
        409 if changed else 200,
        told=visit.decision.told(visit.item, wanted),
        given=given,
        rows=rows,
        shown=shown,
        changed=CHANGED if changed else None,
    )


def _over(visit: _Visit) -> Response:
    """Return the page that says that there is nothing to decide."""
    subject = visit.wish.subject
    return _page(visit, "decide_over.html", 409, state=subject.state)


def _page(visit: _Visit, template: str, status: int, **values: Any) -> Response:
    subject = visit.wish.subject
    return page(
        visit.request,
        template,
        status=status,
        decision=visit.decision,
        title=visit.decision.title.format(subject.name),
        subject=subject,
        token=tokens.token_of(visit.wish.ctx, visit.session),
        **values,
    )


def _digest(visit: _Visit) -> str:
    before = visit.decision.before
    return "" if before is None else difference.digest(before(visit.item))


def _one(sent: Sent, name: str) -> str:
    return (sent.get(name) or [""])[-1]
