"""Pages of a list, as the hub's clients follow them: a Link with a whole URL."""

from __future__ import annotations

from urllib.parse import urlencode

from coldfusion_server.hub.paths import raw_path
from coldfusion_server.hub.routing import Call
from coldfusion_server.services.paging import Window
from coldfusion_shared.errors import InvalidRequest


def window_of(call: Call, most: int) -> Window:
    """Return which part of a list is asked for, `most` items where no number is given."""
    given = call.query("limit")
    limit = int(given) if given and given.isascii() and given.isdigit() and len(given) < 9 else most
    return Window(call.query("cursor"), max(1, min(limit, most)))


def place_of(window: Window) -> int:
    """Return the place in the list that a cursor of ours names; raises `InvalidRequest`."""
    cursor = window.cursor or "0"
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9:
        raise InvalidRequest("The cursor is not one that this server gave out.")
    return int(cursor)


def next_page(call: Call, cursor: str | None) -> dict[str, str]:
    """Return the header that leads to the page of `cursor`; none where that is null."""
    if cursor is None:
        return {}
    asked = [pair for pair in call.request.query_params.multi_items() if pair[0] != "cursor"]
    query = urlencode([*asked, ("cursor", cursor)])
    url = f"{call.base_url}/{raw_path(call.request.scope)}?{query}"
    return {"Link": f'<{url}>; rel="next"'}
