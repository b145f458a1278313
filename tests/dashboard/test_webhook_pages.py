"""The pages of webhooks: for whom, what they show of what others said, what is decided there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from coldfusion_server.db.tables import DeliveryRow, WebhookRow
from coldfusion_shared.webhooks import DeliveryState
from tests.dashboard.test_decisions import Browser, flat
from tests.server.backends import only_sqlite
from tests.server.hooks import delivering, happen, make, settled
from tests.server.receiver import receiver, status
from tests.server.repository import MODEL, Repository, repository

pytestmark = only_sqlite

PRIVATE = "demo/private"
HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    folder = tmp_path_factory.mktemp("webhooks")
    with repository(folder, webhook_private="true") as opened:
        opened.model()
        opened.model(PRIVATE, public=False)
        yield opened


@pytest.fixture(scope="module")
def hook(repo: Repository) -> str:
    """A webhook with one delivery that went well and one that did not."""
    with receiver() as ci:
        made = make(repo, f"{ci.url}?token=t0psecret", events=["base.*"])
        happen(repo, "base.published", version="v1")
        with delivering(repo):
            settled(repo, made["id"], 1, "delivered")
            ci.behave = status(500)
            happen(repo, "base.measured", version="v1")
            settled(repo, made["id"], 1, "failed")
    return str(made["id"])


def test_a_page_tells_what_was_sent_and_what_came_of_it(repo: Repository, hook: str) -> None:
    mia = Browser(repo, "mia", "maintainer")
    text = mia.http.get(f"/webhooks/{hook}").text
    page = flat(text)
    assert "base.published msg_" in page and "delivered" in page
    assert "It answered with status 500." in page and "Tried again" in page
    assert "Its last try failed" in page
    assert "t0psecret" not in text and "whsec_" not in text
    only = flat(mia.http.get(f"/webhooks/{hook}?state=failed").text)
    assert "base.measured msg_" in only and "base.published msg_" not in only
    part = mia.http.get(f"/webhooks/{hook}?part=webhook")
    assert part.status_code == 200 and "<html" not in part.text
    listed = flat(mia.http.get("/webhooks").text)
    assert hook in listed and "failing" in listed and "?" not in listed.split("Posted to")[1]
    none = mia.http.get(f"/webhooks?model={PRIVATE}")
    assert f"webhook create --model {PRIVATE}" in none.text
    assert "/webhooks?model=demo%2Ftiny" in mia.http.get(f"/models/{MODEL}").text
    assert 'href="/webhooks"' in mia.http.get("/health").text


@pytest.mark.parametrize(("role", "models", "status"), [
    (None, None, 401), ("reader", None, 403), ("contributor", None, 403), ("evaluator", None, 403),
    ("maintainer", [PRIVATE], 404),
])  # fmt: skip
def test_others_do_not_see_it(
    role: str | None, models: list[str] | None, status: int, repo: Repository, hook: str
) -> None:
    client = repo.client(None if role is None else repo.token("who", role, models))
    answer = client.get(f"/webhooks/{hook}")
    assert answer.status_code == status
    listed = client.get("/webhooks")
    assert listed.status_code == (200 if models else status)
    assert hook not in listed.text
    assert "/webhooks" not in client.get(f"/models/{MODEL}").text


def test_it_is_sent_again_paused_tried_out_and_deleted_by_forms(repo: Repository) -> None:
    mia = Browser(repo, "mia", "maintainer")
    with receiver() as ci:
        made = make(repo, ci.url, events=["base.*"])
        happen(repo, "base.published")
        with delivering(repo):
            (one,) = settled(repo, made["id"], 1, "delivered")
            forms = f"/decide/webhooks/{made['id']}"
            done = mia.decide(f"{forms}/deliveries/{one['id']}/redeliver")
            assert "is being sent once more" in done
            assert len(ci.wait(2)) == 2
            assert "webhook.ping is being sent" in mia.decide(f"{forms}/ping")
            ci.wait(3)
        assert "It is paused." in mia.decide(f"{forms}/pause")
        # What cannot be done now is not offered, and said where somebody comes by an old link.
        assert mia.http.get(f"{forms}/pause").status_code == 409
        page = mia.http.get(f"/webhooks/{made['id']}").text
        assert f"{forms}/resume" in page and f"{forms}/pause" not in page
        # Not to what is paused: that it would wait for ever is said.
        refused = mia.confirm(
            f"{forms}/deliveries/{one['id']}/redeliver",
            mia.fill(f"{forms}/deliveries/{one['id']}/redeliver"),
        )
        assert refused.status_code == 409 and "not active" in refused.text
        assert "It goes on" in mia.decide(f"{forms}/resume")
        assert "is deleted" in mia.decide(f"{forms}/delete")
        assert mia.http.get(f"/webhooks/{made['id']}").status_code == 404


def test_others_decide_nothing(repo: Repository, hook: str) -> None:
    for name, role, models in (("ann", "contributor", None), ("max", "maintainer", [PRIVATE])):
        other = Browser(repo, name, role, **({} if models is None else {"models": models}))
        for what in ("ping", "pause", "delete"):
            answer = other.http.get(f"/decide/webhooks/{hook}/{what}", follow_redirects=False)
            assert answer.status_code in (403, 404)
    visitor = repo.client().get(f"/decide/webhooks/{hook}/ping", follow_redirects=False)
    assert visitor.headers["location"].startswith("/login")


def test_one_of_all_models_is_the_admins(repo: Repository) -> None:
    admin = Browser(repo, "ada", "admin")
    every = make(repo, "https://ci.example.org/", admin.token, model=None)["id"]
    assert "all public models" in flat(admin.http.get(f"/webhooks/{every}").text)
    assert "It is paused" in admin.decide(f"/decide/webhooks/{every}/pause")
    mia = Browser(repo, "mia", "maintainer")
    assert mia.http.get(f"/webhooks/{every}").status_code == 404
    assert mia.http.get(f"/decide/webhooks/{every}/resume").status_code == 404


def test_what_others_said_is_text_and_no_markup(repo: Repository) -> None:
    made = make(repo, "https://ci.example.org/%3Cscript%3E?x=<script>", events=["base.*"])["id"]
    with repo.ctx.database.write() as session:
        row = session.scalars(select(WebhookRow).where(WebhookRow.id == made)).one()
        session.add(
            DeliveryRow(
                id="msg_x",
                webhook_id=row.id,
                event_id=None,
                state=DeliveryState.GIVEN_UP,
                event={"id": None, "type": HOSTILE, "model": MODEL, "at": "", "data": {}},
                attempts=1,
                error=HOSTILE,
                created_at=repo.clock(),
                tried_at=repo.clock(),
            )  # fmt: skip
        )
    text = Browser(repo, "mia", "maintainer").http.get(f"/webhooks/{made}").text
    assert "<script>alert" not in text and "\x1b" not in text
