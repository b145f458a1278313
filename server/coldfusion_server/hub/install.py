"""Puts the hub door into an application."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import Scope

from coldfusion_server.api.admission import Admission
from coldfusion_server.hub import (
    accounts,
    creating,
    discussions,
    facts,
    lfs,
    preupload,
    pushing,
    reading,
    refused,
    resolve,
    xet,
)
from coldfusion_server.hub.answers import add_hub_errors
from coldfusion_server.hub.routing import HubRoute, admission_of

# The first one that fits answers.
ROUTES: tuple[HubRoute, ...] = (
    *accounts.ROUTES,
    *facts.ROUTES,
    *reading.ROUTES,
    *resolve.ROUTES,
    *creating.ROUTES,
    *preupload.ROUTES,
    *lfs.ROUTES,
    *pushing.ROUTES,
    *discussions.ROUTES,
    *xet.ROUTES,
    # What nobody above answers.
    *refused.ROUTES,
)


def add_hub(app: FastAPI) -> None:
    """Add the hub's routes to `app`, which has its API, its pages and their handlers already."""
    app.router.routes.extend(ROUTES)
    add_hub_errors(app, ROUTES)


def admit(scope: Scope) -> Admission | None:
    """Return what the gate lets pass for a hub client's request; null: it is none."""
    return admission_of(scope, ROUTES)
