"""Decisions by form: what they do, who may make them, and that nobody else can have them made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from coldfusion_server.api.gate import DECISION_BYTES
from coldfusion_server.dashboard.decisions import forms, tokens
from coldfusion_server.services import models
from coldfusion_server.services.closing import close_by_hand
from coldfusion_shared.schemas.models import Policy
from tests.dashboard.history import HOSTILE
from tests.server.backends import only_sqlite
from tests.server.repository import ANY_UPDATE, MODEL, Repository, body_file, repository
from tests.server.test_quarantine import STRICT, held
from tests.server.test_round_way import accepted

# The services are tested on both databases.
pytestmark = only_sqlite

MODELS = f"/decide/models/{MODEL}"
ROUND = f"{MODELS}/rounds/1"


class _Forms(HTMLParser):
    """The fields of the forms of a page, as a browser would send them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, list[str]] = {}
        self._area: str | None = None
        self._select: str | None = None
        self._option = False
        self._text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "input" and "name" in found:
            ticked = found.get("type") != "checkbox" or "checked" in found
            if ticked:
                self.fields.setdefault(found["name"], []).append(found.get("value", ""))
        elif tag == "textarea":
            self._area, self._text = found["name"], ""
        elif tag == "select":
            self._select = found["name"]
        elif tag == "option" and self._select is not None:
            self._option, self._text = "selected" in found, found.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self._text += data
        elif self._option:
            self._text = self._text or data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            # Browsers leave out the line break that a box begins with.
            self.fields[self._area] = [self._text.removeprefix("\n")]
            self._area = None
        elif tag == "option" and self._option and self._select is not None:
            self.fields[self._select] = [self._text]
            self._option = False
        elif tag == "select":
            self._select = None


class Browser:
    """Somebody who is logged in, without JavaScript."""

    def __init__(self, repo: Repository, name: str, role: str, **scope: Any) -> None:
        self.repo = repo
        self.http = repo.client()
        self.token = repo.token(name, role, **scope)
        answer = self.http.post("/login", data={"token": self.token}, follow_redirects=False)
        assert answer.status_code == 303

    def fields(self, path: str) -> dict[str, list[str]]:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        found = _Forms(answer.text).fields
        found.pop("_confirm", None)
        return found

    def fill(self, path: str, **values: Any) -> Any:
        """Open a form, fill it in, and send it; return the answer."""
        fields = self.fields(path)
        for name, value in values.items():
            fields[name.replace("__", ".")] = value if isinstance(value, list) else [value]
        return self.send(path, fields)

    def send(self, path: str, fields: dict[str, list[str]], **headers: str) -> Any:
        return self.http.post(
            path.partition("?")[0], data=fields, headers=headers, follow_redirects=False
        )

    def confirm(self, path: str, question: Any) -> Any:
        """Say yes to a page that asks; return the answer."""
        assert question.status_code == 200, question.text
        return self.send(path, {**_Forms(question.text).fields, "_confirm": ["yes"]})

    def decide(self, path: str, **values: Any) -> str:
        """Go the whole way; return the text of the page that it ends on."""
        done = self.confirm(path, self.fill(path, **values))
        assert done.status_code == 303, done.text
        page = self.http.get(done.headers["location"])
        assert page.status_code == 200
        return flat(page.text)


def flat(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def audited(repo: Repository, action: str) -> list[Any]:
    found = repo.get(f"/v1/audit?action={action}", repo.token("root", "admin"))
    return [(one["by"], one["subject"], one["reason"]) for one in found["items"]]


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    """A Repository with the tiny model, whose rounds close with two contributions."""
    with repository(tmp_path / "data") as opened:
        opened.model()
        yield opened


@pytest.fixture
def mia(repo: Repository) -> Browser:
    return Browser(repo, "mia", "maintainer")


@pytest.fixture
def strict(repo: Repository) -> Repository:
    """The Repository with a model that holds back long updates."""
    set_policy(repo, screening=STRICT)
    return repo


def set_policy(repo: Repository, **values: Any) -> None:
    rules = Policy(**{"screening": ANY_UPDATE, **values})
    models.set_policy(repo.ctx, MODEL, rules, repo.principal("max", "maintainer"))


def state(repo: Repository, contribution: str) -> str:
    return str(repo.get(f"/v1/contributions/{contribution}")["state"])


def published(repo: Repository, *seeds: int) -> list[str]:
    """Publish a base of contributions of these seeds."""
    found = accepted(repo, list(seeds), base=repo.get(f"/v1/models/{MODEL}")["current"])
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    return found


def rejected_round(repo: Repository) -> list[str]:
    """Let the gate reject round 1; return what it has set aside."""
    set_policy(repo, gate={"kind": "norm", "max_relative_norm": 1e-9})
    found = published(repo, 1, 2)
    assert repo.get(f"/v1/models/{MODEL}/rounds/1")["state"] == "rejected"
    return found


# Each decision, with what it changes and what the audit log has of it.


def test_a_contribution_is_released_from_quarantine(strict: Repository, mia: Browser) -> None:
    odd = held(strict)
    path = f"/decide/contributions/{odd}/release"
    question = mia.fill(path, reason="a new language")
    assert "a new language" in question.text and "Everybody sees who released it" in question.text
    assert state(strict, odd) == "quarantined", "it was only asked"
    done = mia.confirm(path, question)
    assert (done.status_code, done.headers["location"]) == (303, f"/contributions/{odd}")
    assert state(strict, odd) == "accepted"
    assert audited(strict, "contribution.released") == [("mia", odd, "a new language")]
    page = mia.http.get(f"/contributions/{odd}").text
    assert f"{odd} is released. It goes into round 1." in page
    assert "is released" not in mia.http.get(f"/contributions/{odd}").text, "it is said once"


def test_a_contribution_is_rejected_with_a_reason(strict: Repository, mia: Browser) -> None:
    odd = held(strict)
    page = mia.decide(f"/decide/contributions/{odd}/reject", reason="the third copy")
    assert "is rejected; it goes into no base" in page and "the third copy" in page
    assert state(strict, odd) == "rejected"
    assert audited(strict, "contribution.rejected") == [("mia", odd, "the third copy")]


def test_a_contribution_is_removed_and_erased(repo: Repository, mia: Browser) -> None:
    first, _ = published(repo, 1, 2)
    question = mia.fill(f"/decide/contributions/{first}/remove", reason="not free", erase="yes")
    assert "v1 and the bases that came from it contain it" in question.text
    assert "stored files are deleted at once" in question.text
    done = mia.confirm(f"/decide/contributions/{first}/remove", question)
    assert "is withdrawn. v1 contains it" in mia.http.get(done.headers["location"]).text
    assert repo.get(f"/v1/contributions/{first}")["erased_at"] is not None
    assert audited(repo, "contribution.withdrawn") == [("mia", first, "not free")]


def test_a_round_is_closed_now(repo: Repository, mia: Browser) -> None:
    accepted(repo, [1, 2])
    page = mia.decide(f"{ROUND}/close")
    assert "Round 1 is closed and will be fused." in page
    assert repo.get(f"/v1/models/{MODEL}/rounds/1")["state"] == "closed"
    assert audited(repo, "round.closed") == [("mia", "1", None)]


def test_a_round_closes_at_a_time(repo: Repository, mia: Browser) -> None:
    page = mia.decide(f"{ROUND}/close", at="2026-06-02T18:30")
    assert "Round 1 closes at 2026-06-02 18:30 UTC" in page
    assert repo.get(f"/v1/models/{MODEL}/rounds/1")["closes_at"] == "2026-06-02T18:30:00Z"
    mia.decide(f"{ROUND}/close", at="2026-06-02T18:30")
    assert audited(repo, "round.scheduled") == [("mia", "1", None)], "twice is once"
    answer = mia.fill(f"{ROUND}/close", at="2020-01-01T00:00")
    answer = mia.confirm(f"{ROUND}/close", answer)
    assert answer.status_code == 422 and "is past" in answer.text


def test_a_round_that_has_nothing_is_not_closed(repo: Repository, mia: Browser) -> None:
    answer = mia.confirm(f"{ROUND}/close", mia.fill(f"{ROUND}/close"))
    assert answer.status_code == 409 and "has no accepted contribution yet" in answer.text
    assert "autofocus" in answer.text


def test_a_round_is_cancelled(repo: Repository, mia: Browser) -> None:
    accepted(repo, [1])
    page = mia.decide(f"{ROUND}/cancel", reason="a broken script")
    assert "Round 1 is cancelled. What it had goes on" in page
    assert repo.get(f"/v1/models/{MODEL}/rounds/2")["accepted"] == 1
    assert audited(repo, "round.cancelled") == [("mia", "1", "a broken script")]


def test_a_rejected_round_is_fused_again_without_some(repo: Repository, mia: Browser) -> None:
    bad, good = rejected_round(repo)
    form = mia.http.get(f"{ROUND}/again").text
    assert form.count('name="without"') == 2 and bad in form and good in form
    question = mia.fill(f"{ROUND}/again", without=[bad], reason="breaks reviews")
    assert f"Rejected for good: {bad}." in question.text
    done = mia.confirm(f"{ROUND}/again", question)
    assert done.headers["location"] == f"/models/{MODEL}/rounds/2"
    page = flat(mia.http.get(done.headers["location"]).text)
    assert "In round 2 now: 1. Left out and rejected: 1." in page
    assert (state(repo, bad), state(repo, good)) == ("rejected", "accepted")
    assert audited(repo, "round.again") == [("mia", "1", "breaks reviews")]


def test_the_policy_is_changed_after_its_difference_was_shown(
    repo: Repository, mia: Browser
) -> None:
    path = f"{MODELS}/policy"
    weights = json.dumps({HOSTILE: 2})
    question = mia.fill(
        path, min_contributions="3", by_hand="yes", gate__tolerance="1.5", dare__density="0.5",
        contributor_weights=weights, method="weighted_mean", line_search="",
    )  # fmt: skip
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>.*?<del>(.*?)</del>.*?<ins>(.*?)</ins>",
                      question.text)  # fmt: skip
    assert ("min_contributions", "2", "3") in rows and ("by_hand", "no", "yes") in rows
    assert ("gate.tolerance", "0", "1.5") in rows and ("dare.density", "not set", "0.5") in rows
    assert HOSTILE not in question.text and "contributor_weights.&lt;script&gt;" in question.text
    assert len(rows) == 7
    done = mia.confirm(path, question)
    assert done.headers["location"] == f"/models/{MODEL}"
    assert "The policy of demo/tiny is changed" in mia.http.get(f"/models/{MODEL}").text
    now = repo.get(f"/v1/models/{MODEL}")["policy"]
    assert (now["min_contributions"], now["by_hand"], now["gate"]["tolerance"]) == (3, True, 1.5)
    assert now["contributor_weights"] == {HOSTILE: 2} and now["screening"] == ANY_UPDATE
    (entry,) = audited(repo, "model.policy")
    assert entry == ("mia", None, None)
    # A second click of the same: what was wanted is there.
    again = mia.confirm(path, question)
    assert again.status_code == 303
    assert "how it is already" in mia.http.get(f"/models/{MODEL}").text
    assert len(audited(repo, "model.policy")) == 1


def test_a_policy_that_nothing_is_changed_in_is_not_saved(repo: Repository, mia: Browser) -> None:
    answer = mia.fill(f"{MODELS}/policy")
    assert answer.status_code == 200 and "Nothing would change" in answer.text


@pytest.mark.parametrize("late", [False, True])
def test_another_ones_policy_is_not_overwritten(repo: Repository, mia: Browser, late: bool) -> None:
    """`late`: it is changed while the page that asks is looked at, else while the form is."""
    path = f"{MODELS}/policy"
    fields = {**mia.fields(path), "min_contributions": ["5"]}
    if late:
        question = mia.send(path, fields)
        fields = {**_Forms(question.text).fields, "_confirm": ["yes"]}
    set_policy(repo, max_staleness=9)
    answer = mia.send(path, fields)
    assert answer.status_code == 409 and "Somebody else has changed this" in answer.text
    assert ">max_staleness<" in answer.text and ">min_contributions<" in answer.text
    now = repo.get(f"/v1/models/{MODEL}")["policy"]
    assert (now["min_contributions"], now["max_staleness"]) == (2, 9)
    # Who has seen that may still want it.
    sent = {**_Forms(answer.text).fields, "_confirm": ["yes"]}
    assert mia.send(path, sent).status_code == 303
    now = repo.get(f"/v1/models/{MODEL}")["policy"]
    assert (now["min_contributions"], now["max_staleness"]) == (5, 4)


def test_of_two_who_save_at_one_moment_one_is_asked_again(
    repo: Repository, mia: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{MODELS}/policy"
    question = mia.fill(path, min_contributions="5")
    real, raced = models.change_policy, list[int]()

    def change(*args: Any) -> Any:
        if not raced:
            raced.append(1)
            set_policy(repo, max_staleness=9)
        return real(*args)

    monkeypatch.setattr(models, "change_policy", change)
    answer = mia.send(path, {**_Forms(question.text).fields, "_confirm": ["yes"]})
    assert answer.status_code == 409 and "Somebody else has changed this" in answer.text
    assert repo.get(f"/v1/models/{MODEL}")["policy"]["max_staleness"] == 9


def test_a_policy_that_cannot_be_used_is_told_before_it_is_asked(
    repo: Repository, mia: Browser
) -> None:
    path = f"{MODELS}/policy"
    answer = mia.fill(
        path,
        min_contributions="0",
        pull="much",
        screening="{",
        gate__kind="none",
        max_per_task="1.5",
    )
    assert answer.status_code == 422
    for name, sentence in {
        "pull": "This has to be a number.",
        "screening": "This is not JSON",
        "max_per_task": "This has to be a whole number.",
    }.items():
        found = re.search(rf'<p class="reason" id="fault-{name}">(.*?)</p>', answer.text)
        assert found is not None and sentence in found[1], name
        box = re.search(rf'<(?:input|textarea) id="field-{name}"[^>]*>', answer.text)
        assert box is not None and 'aria-invalid="true"' in box[0]
        assert f'aria-describedby="about-{name} fault-{name}"' in box[0]
    assert 'value="much"' in answer.text, "what was filled in stays"
    answer = mia.fill(path, min_contributions="0")
    assert "This has to be 1 or more." in answer.text
    answer = mia.fill(path, gate__kind="suite")
    assert "needs the name of a suite" in answer.text
    answer = mia.fill(path, gate__kind="suite", gate__suite="nobody-knows")
    assert answer.status_code == 404 and "is not registered here" in answer.text
    answer = mia.fill(path, method="magic")
    assert answer.status_code == 422 and "magic" in answer.text
    answer = mia.fill(path, screening='{"norm": {"magic": 1}}')
    assert answer.status_code == 422 and "magic" in answer.text
    assert repo.get(f"/v1/models/{MODEL}")["policy"]["min_contributions"] == 2


def test_what_was_filled_in_can_be_mended(repo: Repository, mia: Browser) -> None:
    path = f"{MODELS}/policy"
    question = mia.fill(path, min_contributions="3")
    back = mia.send(path, {**_Forms(question.text).fields, "_change": ["yes"]})
    assert back.status_code == 200 and _Forms(back.text).fields["min_contributions"] == ["3"]


def test_the_head_goes_back_and_forward(repo: Repository, mia: Browser) -> None:
    published(repo, 1, 2)
    question = mia.fill(f"{MODELS}/bases/v0/rollback", reason="v1 forgot")
    assert "v0 is what people pull" in question.text
    done = mia.confirm(f"{MODELS}/bases/v0/rollback", question)
    assert "went from v1 to v0" in mia.http.get(done.headers["location"]).text
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v0"
    assert audited(repo, "model.rolled_back") == [("mia", "v0", "v1 forgot")]
    answer = mia.http.get(f"{MODELS}/bases/v0/rollback")
    assert answer.status_code == 409 and "v0 of demo/tiny is the current base" in answer.text


def test_a_base_is_measured_once_more(repo: Repository, mia: Browser) -> None:
    assert "waits to be measured" in mia.decide(f"{MODELS}/bases/v0/evaluate", reason="new data")


def test_history_is_fused_again_and_published(repo: Repository, mia: Browser) -> None:
    bad, _, _ = published(repo, 1, 2, 3)
    path = f"{MODELS}/replay?without={bad}"
    assert mia.fields(path)["without"] == [bad]
    page = mia.decide(path, reason="not free")
    assert "is asked for: 1 base to fuse again" in page
    (asked,) = audited(repo, "replay.queued")
    assert (asked[0], asked[2]) == ("mia", "not free")
    replay = asked[1]
    answer = mia.http.get(f"{MODELS}/replays/{replay}/publish")
    assert answer.status_code == 409 and "is queued" in answer.text
    repo.work()
    assert "ready" in flat(mia.http.get(f"{MODELS}/replays?part=replays").text)
    path = f"{MODELS}/replays/{replay}/publish"
    question = mia.http.get(path)
    assert "Its 1 base" in question.text
    done = mia.confirm(path, question)
    assert "v2 is the current base in place of v1" in mia.http.get(done.headers["location"]).text
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v2"
    assert [one[:2] for one in audited(repo, "replay.published")] == [("mia", replay)]
    answer = mia.confirm(path, question)
    assert answer.status_code == 409 and "was published already" in answer.text


def test_a_replay_is_discarded(repo: Repository, mia: Browser) -> None:
    bad, _, _ = published(repo, 1, 2, 3)
    mia.decide(f"{MODELS}/replay", without=bad, start="v0")
    ((_, replay, _),) = audited(repo, "replay.queued")
    path = f"{MODELS}/replays/{replay}/discard"
    done = mia.confirm(path, mia.http.get(path))
    assert "is given up" in mia.http.get(done.headers["location"]).text
    assert [one[:2] for one in audited(repo, "replay.discarded")] == [("mia", replay)]


@pytest.mark.parametrize("start", ["v9", "nowhere"])
def test_a_replay_that_cannot_be_is_told(repo: Repository, mia: Browser, start: str) -> None:
    bad, _, _ = published(repo, 1, 2, 3)
    answer = mia.fill(f"{MODELS}/replay", without=bad, start=start)
    if start == "v9":
        answer = mia.confirm(f"{MODELS}/replay", answer)
    assert answer.status_code in (404, 422) and f'value="{start}"' in answer.text


def test_only_an_id_is_taken_from_an_address(repo: Repository, mia: Browser) -> None:
    published(repo, 1, 2)
    for text in ("hostile", HOSTILE, "0" * 17):
        assert mia.fields(f"{MODELS}/replay?without={text}")["without"] == [""]


# Whoever comes late.


def test_a_second_click_does_nothing_twice(strict: Repository, mia: Browser) -> None:
    odd = held(strict)
    path = f"/decide/contributions/{odd}/release"
    question = mia.fill(path, reason="why")
    for _ in range(2):
        assert mia.confirm(path, question).status_code == 303
    assert "was released before" in mia.http.get(f"/contributions/{odd}").text
    assert len(audited(strict, "contribution.released")) == 1


def test_what_has_moved_on_is_said(strict: Repository, mia: Browser) -> None:
    odd = held(strict)
    path = f"/decide/contributions/{odd}/release"
    fields = {**mia.fields(path), "reason": ["why"]}
    question = mia.send(path, fields)
    other = Browser(strict, "max", "maintainer")
    other.decide(f"/decide/contributions/{odd}/reject", reason="no")
    answer = mia.confirm(path, question)
    assert answer.status_code == 409 and "not in quarantine" in answer.text
    answer = mia.send(path, fields)
    assert answer.status_code == 409 and "There is nothing to decide here" in answer.text
    assert mia.http.get(path).status_code == 409
    accepted(strict, [1, 2])
    closing = mia.fill(f"{ROUND}/close")
    other.decide(f"{ROUND}/close")
    answer = mia.confirm(f"{ROUND}/close", closing)
    assert answer.status_code == 409 and "is closed, not open" in answer.text


def test_what_is_called_open_or_latest_is_asked_for_by_its_own_name(
    repo: Repository, mia: Browser
) -> None:
    accepted(repo, [1, 2])
    question = mia.fill(f"{ROUND}/cancel", reason="why")
    for name, real in {
        f"{MODELS}/rounds/open/cancel": f"{ROUND}/cancel",
        f"{MODELS}/bases/latest/evaluate": f"{MODELS}/bases/v0/evaluate",
    }.items():
        for answer in (
            mia.http.get(name, follow_redirects=False),
            mia.send(name, {**_Forms(question.text).fields, "_confirm": ["yes"]}),
        ):
            assert (answer.status_code, answer.headers["location"]) == (303, real)
    assert repo.get(f"/v1/models/{MODEL}/rounds/1")["state"] == "open"


# Who may.

ANYTHING = [
    f"{MODELS}/policy",
    f"{MODELS}/replay",
    f"{MODELS}/replays",
    f"{ROUND}/close",
    f"{ROUND}/cancel",
    f"{MODELS}/bases/v0/rollback",
    f"{MODELS}/bases/v0/evaluate",
]


@pytest.mark.parametrize("role", ["reader", "contributor", "evaluator"])
def test_nobody_but_maintainers_decides(strict: Repository, role: str) -> None:
    odd = held(strict)
    someone = Browser(strict, "sam", role)
    session = tokens.token_of(strict.ctx, someone.token.split("_")[1])
    for path in [*ANYTHING, f"/decide/contributions/{odd}/release"]:
        shown = someone.http.get(path)
        assert shown.status_code == 403 and "<html" in shown.text, path
        if not path.endswith("/replays"):
            sent = {"_token": [session], "_confirm": ["yes"], "reason": ["why"]}
            assert someone.send(path, sent).status_code == 403, path
    for page in (f"/models/{MODEL}", f"/models/{MODEL}/rounds/1", f"/contributions/{odd}"):
        assert "/decide/" not in someone.http.get(page).text
    assert state(strict, odd) == "quarantined"


@pytest.mark.parametrize("role", ["maintainer", "admin"])
def test_whoever_may_sees_the_links(strict: Repository, role: str) -> None:
    odd = held(strict)
    someone = Browser(strict, "sam", role)
    for page, link in {
        f"/models/{MODEL}": f"{MODELS}/policy",
        f"/models/{MODEL}/rounds/1": f"{ROUND}/close",
        f"/models/{MODEL}/bases/v0": f"{MODELS}/bases/v0/evaluate",
        f"/contributions/{odd}": f"/decide/contributions/{odd}/release",
    }.items():
        assert f'href="{link}"' in someone.http.get(page).text, page
        assert someone.http.get(link).status_code == 200, link


@pytest.mark.parametrize("path", ANYTHING)
def test_a_visitor_logs_in_first(repo: Repository, path: str) -> None:
    visitor = repo.client()
    for method in ("GET", "POST"):
        answer = visitor.request(method, path, data={"_confirm": "yes"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")
    assert "/decide/" not in visitor.get(f"/models/{MODEL}").text


def test_a_private_model_is_decided_on_by_its_own_maintainers(repo: Repository) -> None:
    private = repo.model("demo/private", public=False)
    theirs = Browser(repo, "mia", "maintainer", models=[private])
    others = Browser(repo, "max", "maintainer", models=[MODEL])
    path = f"/decide/models/{private}/policy"
    assert "is changed" in theirs.decide(path, min_contributions="3")
    hidden, nowhere = (others.http.get(f"/decide/models/{one}/policy")
                       for one in (private, "demo/nowhere"))  # fmt: skip
    assert hidden.status_code == nowhere.status_code == 404
    assert hidden.text.replace(private, "demo/nowhere") == nowhere.text
    assert theirs.http.get(f"{MODELS}/policy").status_code == 403
    assert repo.client().get(path, follow_redirects=False).headers["location"].startswith("/login")
    first = repo.contributor("ann").contribute(body_file(1), model=private)
    assert others.http.get(f"/decide/contributions/{first}/remove").status_code == 404


def test_a_session_that_has_ended_logs_in_again(repo: Repository) -> None:
    mia = Browser(repo, "mia", "maintainer", days=1)
    question = mia.fill(f"{MODELS}/policy", min_contributions="3")
    repo.clock.advance(days=2)
    answer = mia.confirm(f"{MODELS}/policy", question)
    assert answer.headers["location"] == f"/login?next={MODELS}/policy"
    assert repo.get(f"/v1/models/{MODEL}")["policy"]["min_contributions"] == 2


# Whoever wants others to decide for him.


def changes(mia: Browser) -> dict[str, list[str]]:
    """Return all that makes a policy another one, but for what a test leaves out."""
    question = mia.fill(f"{MODELS}/policy", min_contributions="3")
    return {**_Forms(question.text).fields, "_confirm": ["yes"]}


def unchanged(repo: Repository) -> bool:
    return bool(repo.get(f"/v1/models/{MODEL}")["policy"]["min_contributions"] == 2)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields, repo: fields.pop("_token"),
        lambda fields, repo: fields.update(_token=["0" * 64]),
        lambda fields, repo: fields.update(_token=["é" * 64]),
        lambda fields, repo: fields.update(
            _token=Browser(repo, "mia", "maintainer").fields(f"{MODELS}/policy")["_token"]
        ),
    ],
    ids=["none", "wrong", "no letters of ours", "of another session"],
)
def test_a_form_without_the_sessions_number_does_nothing(
    repo: Repository, mia: Browser, spoil: Callable[[Any, Repository], Any]
) -> None:
    fields = changes(mia)
    spoil(fields, repo)
    answer = mia.send(f"{MODELS}/policy", fields)
    assert answer.status_code == 403 and "<html" in answer.text and unchanged(repo)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_decides_nothing(
    repo: Repository, mia: Browser, headers: dict[str, str]
) -> None:
    answer = mia.send(f"{MODELS}/policy", changes(mia), **headers)
    assert answer.status_code == 403 and unchanged(repo)
    ours = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert mia.send(f"{MODELS}/policy", changes(mia), **ours).status_code == 303


def test_a_form_that_is_too_large_or_none_is_refused(repo: Repository, mia: Browser) -> None:
    fields = {**changes(mia), "screening": [" " * DECISION_BYTES]}
    answer = mia.send(f"{MODELS}/policy", fields)
    assert answer.status_code == 413 and "larger than" in flat(answer.text)
    assert answer.headers["content-type"].startswith("text/html"), "it is a person who reads it"
    many = {**changes(mia), "screening": ["{}"] * 3000}
    assert mia.send(f"{MODELS}/policy", many).status_code == 422
    for kind in ("application/json", "multipart/form-data; boundary=x", "text/plain", ""):
        answer = mia.http.post(
            f"{MODELS}/policy", content=b"_confirm=yes", headers={"content-type": kind}
        )
        assert answer.status_code == 401, kind
    answer = mia.http.put(f"{MODELS}/policy", data=changes(mia))
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"].startswith("text/html")
    assert mia.http.post("/decided", data=changes(mia)).status_code == 401
    assert unchanged(repo)


def test_the_api_goes_on_taking_no_cookie(repo: Repository, mia: Browser) -> None:
    for path in ("/bases/v0/evaluate", "/rollback", "/rounds/1/close"):
        assert mia.http.post(f"/v1/models/{MODEL}{path}", data={"a": "b"}).status_code == 401


def test_a_programs_token_is_no_session(repo: Repository) -> None:
    program = repo.client(repo.token("mia", "maintainer"))
    answer = program.get(f"{MODELS}/policy", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={MODELS}/policy")


@pytest.mark.parametrize("path", [f"{MODELS}/nothing", f"{ROUND}/policy", "/decide/", "/decide/x"])
def test_what_there_is_not_is_not_found(repo: Repository, mia: Browser, path: str) -> None:
    answer = mia.http.get(path)
    assert answer.status_code == 404 and "<html" in answer.text


def test_what_is_said_comes_from_us_alone(repo: Repository, mia: Browser) -> None:
    accepted(repo, [1, 2])
    done = mia.confirm(f"{ROUND}/close", mia.fill(f"{ROUND}/close"))
    cookie = done.headers["set-cookie"]
    assert (
        "HttpOnly" in cookie
        and "SameSite=strict" in cookie
        and "said=" not in done.headers["location"]
    )
    value = cookie.partition("=")[2].partition(";")[0]
    page = f"/models/{MODEL}/rounds/1"
    mia.http.cookies.delete("coldfusion_said")

    def says(client: TestClient, path: str, said: str) -> bool:
        session = client.cookies.get("coldfusion_session")
        cookies = f"coldfusion_session={session}; coldfusion_said={said}"
        fresh = repo.client()
        return 'class="outcome"' in fresh.get(path, headers={"cookie": cookies}).text

    assert says(mia.http, page, value)
    assert not says(mia.http, f"/models/{MODEL}", value), "of another page"
    assert not says(Browser(repo, "mia", "maintainer").http, page, value), "of another session"
    for forged in ("", "x", "x.y.z", f"{value}0", f"A{value}", f"..{value[-64:]}"):
        assert not says(mia.http, page, forged)
    repo.clock.advance(minutes=2)
    assert not says(mia.http, page, value), "too late"


def test_hostile_words_stay_words(strict: Repository, mia: Browser) -> None:
    odd = held(strict)
    path = f"/decide/contributions/{odd}/reject"
    for text in (HOSTILE, "a\u202eb\nc", '"><img src=x>'):
        question = mia.fill(path, reason=text)
        assert question.status_code == 200
        assert HOSTILE not in question.text and "<img" not in question.text
        back = mia.send(path, {**_Forms(question.text).fields, "_change": ["yes"]})
        assert HOSTILE not in back.text and "<img" not in back.text
        assert _Forms(back.text).fields["reason"] == [text]
    assert "is rejected" in mia.decide(path, reason=HOSTILE)
    assert HOSTILE not in mia.http.get(f"/contributions/{odd}").text


def test_a_form_is_named_for_who_does_not_see_it(repo: Repository, mia: Browser) -> None:
    page = mia.http.get(f"{MODELS}/policy").text
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    labelled = set(re.findall(r'<label for="([^"]+)"', page))
    boxes = re.findall(r'<(?:input|textarea|select) (?:type="checkbox" )?id="([^"]+)"', page)
    filled = [f"field-{field.name}" for field in forms.leaves(forms.fields(Policy))]
    assert sorted(boxes) == sorted(labelled) == sorted(filled)
    for described in re.findall(r'aria-describedby="([^"]+)"', page):
        assert set(described.split()) <= set(ids)
    assert page.count("<fieldset") == page.count("<legend") == 8
