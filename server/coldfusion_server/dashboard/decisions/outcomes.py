"""Each decision done by its service; what came of it in one sentence, and where to see it."""

from __future__ import annotations

from dataclasses import dataclass

from coldfusion_server.dashboard import formats
from coldfusion_server.dashboard.decisions import difference
from coldfusion_server.dashboard.decisions.subjects import Subject
from coldfusion_server.services import again as fusing_again
from coldfusion_server.services import (
    cancelling,
    closing,
    decisions,
    deliveries,
    measuring_again,
    models,
    replay_publishing,
    replays,
    rollback,
    webhooks,
    withdrawal,
)
from coldfusion_server.services.context import Context
from coldfusion_server.services.tokens import Principal
from coldfusion_shared.errors import StateConflict
from coldfusion_shared.schemas.common import Request
from coldfusion_shared.schemas.contributions import Decision, Withdrawal
from coldfusion_shared.schemas.evaluations import EvaluateRequest
from coldfusion_shared.schemas.models import Policy, RollbackRequest
from coldfusion_shared.schemas.replays import ReplayRequest
from coldfusion_shared.schemas.rounds import AgainRequest, CancelRequest, CloseRequest, FusedAgain
from coldfusion_shared.schemas.webhooks import Delivery, WebhookChange


@dataclass(frozen=True)
class Wish:
    """
    What somebody wants done.

    Attributes:
        ctx: the services' surroundings.
        who: wants it.
        subject: on what it is decided.
        shown: digest of the state that is to be replaced, as it was shown; empty: none was.
    """

    ctx: Context
    who: Principal
    subject: Subject
    shown: str = ""

    @property
    def model(self) -> str:
        """The name of the model that it concerns."""
        return self.subject.model

    @property
    def id(self) -> str:
        """What the services know by: the last part of the address of its forms."""
        return self.subject.forms.rpartition("/")[2]


@dataclass(frozen=True)
class Outcome:
    """
    What came of it.

    Attributes:
        sentence: in words.
        page: where to see it.
    """

    sentence: str
    page: str


def release(wish: Wish, wanted: Decision) -> Outcome:
    """Let a contribution in quarantine take part."""
    done = decisions.release(wish.ctx, wish.id, wanted, wish.who)
    return Outcome(done.sentence, wish.subject.page)


def reject(wish: Wish, wanted: Decision) -> Outcome:
    """Reject a contribution in quarantine."""
    done = decisions.reject(wish.ctx, wish.id, wanted, wish.who)
    return Outcome(done.sentence, wish.subject.page)


def remove(wish: Wish, wanted: Withdrawal) -> Outcome:
    """Take a contribution back."""
    done = withdrawal.withdraw(wish.ctx, wish.id, wanted, wish.who)
    return Outcome(done.sentence, wish.subject.page)


def close(wish: Wish, wanted: CloseRequest) -> Outcome:
    """Close a round, now or at a time."""
    done = closing.close_by_hand(wish.ctx, wish.model, wish.id, wish.who, wanted.at)
    said = f"Round {done.number} is closed and will be fused."
    if wanted.at is not None:
        said = f"Round {done.number} closes at {formats.utc(wanted.at)}, if it can be fused then."
    return Outcome(said, wish.subject.page)


def cancel(wish: Wish, wanted: CancelRequest) -> Outcome:
    """End a round without a base."""
    done = cancelling.cancel(wish.ctx, wish.model, wish.id, wanted.reason, wish.who)
    said = f"Round {done.number} is cancelled. What it had goes on to the next one."
    return Outcome(said, wish.subject.page)


def again(wish: Wish, wanted: AgainRequest) -> Outcome:
    """Have fused again what a gate has rejected."""
    done = fusing_again.fuse_again(wish.ctx, wish.model, wish.id, wanted, wish.who)
    return Outcome(_of_again(done), f"/models/{wish.model}/rounds/{done.round.number}")


def rolled_back(wish: Wish, wanted: RollbackRequest) -> Outcome:
    """Make another base the head."""
    done = rollback.roll_back(wish.ctx, wish.model, wanted, wish.who)
    return Outcome(done.sentence, f"/models/{wish.model}")


def evaluate(wish: Wish, wanted: EvaluateRequest) -> Outcome:
    """Have a base measured once more."""
    done = measuring_again.ask(wish.ctx, wish.model, wish.id, wanted, wish.who)
    return Outcome(done.sentence, wish.subject.page)


def policy(wish: Wish, wanted: Policy) -> Outcome:
    """Change how a model's rounds close and fuse, unless it was changed since it was shown."""

    def change(before: Policy) -> Policy:
        if difference.digest(before) != wish.shown:
            raise StateConflict(
                "Somebody has changed the policy since it was shown to you; nothing was changed."
            )
        return wanted

    models.change_policy(wish.ctx, wish.model, change, wish.who)
    return Outcome(f"The policy of {wish.model} is changed, from now on.", wish.subject.page)


def replay(wish: Wish, wanted: ReplayRequest) -> Outcome:
    """Have history fused again without some contributions."""
    done = replays.ask(wish.ctx, wish.model, wanted, wish.who)
    said = f"Replay {done.id} is asked for: {formats.count(done.total, 'base')} to fuse again."
    return Outcome(said, _replays(wish))


def publish(wish: Wish, wanted: Request) -> Outcome:
    """Publish the bases of a replay."""
    done = replay_publishing.publish(wish.ctx, wish.model, wish.id, wish.who)
    last = done.steps[-1].published
    said = f"Replay {done.id} is published: {last} is the current base in place of {done.head}."
    return Outcome(said, f"/models/{wish.model}")


def discard(wish: Wish, wanted: Request) -> Outcome:
    """Give a replay up."""
    done = replays.discard(wish.ctx, wish.model, wish.id, wish.who)
    return Outcome(f"Replay {done.id} is given up.", _replays(wish))


def ping(wish: Wish, wanted: Request) -> Outcome:
    """Try a webhook out."""
    done = deliveries.ping(wish.ctx, wish.id, wish.who)
    return Outcome(f"{done.type} is being sent as {done.id}.", wish.subject.page)


def pause(wish: Wish, wanted: Request) -> Outcome:
    """Send a webhook nothing any more."""
    webhooks.change_webhook(wish.ctx, wish.id, WebhookChange(active=False), wish.who)
    return Outcome("It is paused.", wish.subject.page)


def resume(wish: Wish, wanted: Request) -> Outcome:
    """Let a webhook go on."""
    webhooks.change_webhook(wish.ctx, wish.id, WebhookChange(active=True), wish.who)
    return Outcome("It goes on, with what happens from now on.", wish.subject.page)


def delete(wish: Wish, wanted: Request) -> Outcome:
    """Delete a webhook."""
    webhooks.delete_webhook(wish.ctx, wish.id, wish.who)
    return Outcome(f"The webhook {wish.id} is deleted.", "/webhooks")


def redeliver(wish: Wish, wanted: Request) -> Outcome:
    """Send an event once more."""
    assert isinstance(wish.subject.item, Delivery), "the catalogue says so"
    done = deliveries.redeliver(wish.ctx, wish.subject.item.webhook, wish.id, wish.who)
    return Outcome(f"{done.type} is being sent once more, as {done.id}.", wish.subject.page)


def _of_again(done: FusedAgain) -> str:
    said = [f"In round {done.round.number} now: {len(done.accepted)}."]
    if done.left_out:
        said.append(f"Left out and rejected: {len(done.left_out)}.")
    if done.too_old:
        said.append(f"Rejected, for their base is too old by now: {len(done.too_old)}.")
    return " ".join(said)


def _replays(wish: Wish) -> str:
    return f"/decide/models/{wish.model}/replays"
