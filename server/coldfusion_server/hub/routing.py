"""Routes by the raw path, and what their functions are given."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from coldfusion_server.api.admission import Admission
from coldfusion_server.api.dependencies import base_url
from coldfusion_server.hub.paths import HUBS, OURS, Template, words_of
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal


@dataclass(frozen=True)
class Call:
    """
    One request of a hub client.

    Attributes:
        request: as it came.
        values: what stands in the places of the route's template, unquoted once.
        body: of a route that does not read it itself.
    """

    request: Request
    values: Mapping[str, str]
    body: bytes = b""

    @property
    def ctx(self) -> Context:
        """The services' surroundings."""
        context: Context = self.request.app.state.context
        return context

    @property
    def who(self) -> Principal | None:
        """Who asks; null: a visitor."""
        principal: Principal | None = self.request.state.principal
        return principal

    @property
    def model(self) -> str:
        """The model's name, owner/name, whether or not there is one."""
        return f"{self.values['owner']}/{self.values['name']}"

    @property
    def base_url(self) -> str:
        """The URL under which this client reaches the server, without a slash at the end."""
        return base_url(self.request)

    def query(self, name: str) -> str | None:
        """Return a parameter of the query; null: it is not there."""
        return self.request.query_params.get(name)

    def is_set(self, name: str) -> bool:
        """Return whether a parameter of the query says yes, as the hub's clients write it."""
        return (self.query(name) or "").lower() in ("1", "true")


Answer = Callable[[Call], Response] | Callable[[Call], Awaitable[Response]]


@dataclass
class HubRoute(BaseRoute):
    """
    A route of the hub's wire format.

    Attributes:
        path: its template.
        answer: answers a call. A plain function runs in a thread and is given the body; an async
            one reads it itself, if the admission says that it streams.
        methods: those that it takes; GET takes HEAD along.
        admission: what the gate lets pass for it besides the usual.
    """

    path: str
    answer: Answer
    methods: frozenset[str] = frozenset({"GET", "HEAD"})
    admission: Admission = field(default_factory=Admission)

    def __post_init__(self) -> None:
        """Compile the template."""
        self.template = Template(self.path)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Compare the raw path, and then the method."""
        if scope["type"] != "http":
            return Match.NONE, {}
        words = words_of(scope)
        ours = words[0] in OURS
        values = self.template.match(words) if ours == self.template.is_ours else None
        if values is None:
            return Match.NONE, {}
        match = Match.FULL if scope["method"] in self.methods else Match.PARTIAL
        return match, {"hub": values, "route": self, "endpoint": self.answer, "path_params": {}}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Refuse: nobody asks for addresses by name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["method"] not in self.methods:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self.methods))})
        request = Request(scope, receive, send)
        if inspect.iscoroutinefunction(self.answer):
            response = await self.answer(Call(request, scope["hub"]))
        else:
            call = Call(request, scope["hub"], await request.body())
            response = await run_in_threadpool(self.answer, call)
        await response(scope, receive, send)


def get(path: str, answer: Answer) -> HubRoute:
    """Return a route that reads."""
    return HubRoute(path, answer)


def post(path: str, answer: Answer, admission: Admission | None = None) -> HubRoute:
    """Return a route to which something is posted."""
    return HubRoute(path, answer, frozenset({"POST"}), admission or Admission())


def is_hubs(scope: Scope, routes: Iterable[HubRoute]) -> bool:
    """Return whether a hub client asks, so that it is answered as it expects."""
    return words_of(scope)[0] in HUBS or any(_fits(route, scope) for route in routes)


def admission_of(scope: Scope, routes: Iterable[HubRoute]) -> Admission | None:
    """Return what the gate lets pass for a request of one of `routes`; null: it is of none."""
    ours = words_of(scope)[0] in OURS
    for route in routes:
        if route.template.is_ours != ours:
            continue
        if scope["method"] in route.methods and _fits(route, scope):
            return route.admission
    return None


def _fits(route: HubRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] is not Match.NONE
