"""What is told of a model: as itself, and as one of a list."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from coldfusion_server.hub.pages import next_page, window_of
from coldfusion_server.hub.routing import Call, get
from coldfusion_server.services import card_data, cards, hub_models, pulled
from coldfusion_server.services.hub_models import ListedModel
from coldfusion_server.services.measured import measurements
from coldfusion_server.services.paging import MAX_LIMIT
from coldfusion_server.services.revisions import Revision


def of_model(call: Call, revision: Revision) -> dict[str, Any]:
    """Return what is told of a revision of a model: its facts, its card's, and its files' names."""
    model = hub_models.get(call.ctx, revision.model, call.who)
    data = _card(call, revision)
    return {
        **_told(model, data),
        "sha": revision.commit,
        "lastModified": date_of(revision.created_at),
        "cardData": data,
        "model-index": data.get("model-index"),
        "siblings": [{"rfilename": file.path} for file in revision.files],
        "usedStorage": sum(file.size for file in revision.files),
    }


def list_models(call: Call) -> Response:
    """List the models that the caller may read, newest first."""
    window = window_of(call, MAX_LIMIT)
    page = hub_models.search(
        call.ctx, call.who, window, text=call.query("search"), author=call.query("author")
    )
    full = call.is_set("full")
    listed = [{**_told(item, {}), **(_head(item) if full else {})} for item in page.items]
    return JSONResponse(listed, headers=next_page(call, page.next_cursor))


def date_of(time: datetime) -> str:
    """Return a time as the hub's clients read it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _card(call: Call, revision: Revision) -> Mapping[str, Any]:
    """Return what the stored card says to programs, and what was measured since."""
    card = next((file for file in revision.files if file.path == cards.CARD_FILE), None)
    data = {} if card is None else card_data.parse(cards.read_card(call.ctx, card))
    version = revision.name
    if pulled.pull_number(version) is not None:
        return data
    measured = measurements(call.ctx, revision.model, call.who, [int(version[1:])])
    url = cards.live_url(call.base_url, revision.model, version)
    index = card_data.model_index(revision.model, version, measured, url)
    return data if index is None else {**data, "model-index": index}


def _told(model: ListedModel, data: Mapping[str, Any]) -> dict[str, Any]:
    tags = [card_data.LIBRARY, *card_data.TAGS]
    if "license" in data:
        tags.append(f"license:{data['license']}")
    return {
        "_id": model.name,
        "id": model.name,
        "modelId": model.name,
        "author": model.name.split("/")[0],
        "private": not model.public,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "library_name": card_data.LIBRARY,
        "pipeline_tag": data.get("pipeline_tag"),
        "tags": tags,
        "createdAt": date_of(model.created_at),
    }


def _head(model: ListedModel) -> dict[str, Any]:
    return {
        "sha": model.commit,
        "lastModified": date_of(model.published_at),
        "siblings": [{"rfilename": path} for path in model.files],
    }


ROUTES = (get("/api/models", list_models),)
