"""What a decision will do, in sentences, before it is made. Pure."""

from __future__ import annotations

from coldfusion_server.dashboard import formats
from coldfusion_shared.rounds import RoundState
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.common import Request
from coldfusion_shared.schemas.contributions import Contribution, Decision, Withdrawal
from coldfusion_shared.schemas.models import Model, RollbackRequest
from coldfusion_shared.schemas.replays import Replay, ReplayRequest
from coldfusion_shared.schemas.rounds import AgainRequest, CloseRequest, Round
from coldfusion_shared.schemas.webhooks import Delivery, Webhook

READ = "Its contributor reads the reason."
NAMED = 5


def waits(round_: Round) -> int:
    """Return how many contributions a round has that go on if it ends without a base."""
    return round_.accepted + round_.waiting + round_.quarantined


def release(item: Contribution, wanted: Decision) -> list[str]:
    """Tell of a release from quarantine."""
    takes = "It takes part in the round that takes contributions now, behind what that has."
    return [takes, f"{READ} Everybody sees who released it."]


def reject(item: Contribution, wanted: Decision) -> list[str]:
    """Tell of a rejection."""
    return [
        "It is rejected for good: it goes into no base, and its stored files are deleted.",
        READ,
    ]


def remove(item: Contribution, wanted: Withdrawal) -> list[str]:
    """Tell of a withdrawal by a maintainer."""
    said = ["It is marked as withdrawn, for good."]
    if item.result is None:
        said.append("It goes into no base. A round that is fusing it begins again without it.")
    else:
        said.append(
            f"{item.result} and the bases that came from it contain it and stay as they are. Only "
            "a replay makes bases without it."
        )
    if wanted.erase:
        said.append(
            "Its stored files are deleted at once. Nobody can verify or fuse again what it went "
            "into."
        )
    return [*said, READ]


def close(item: Round, wanted: CloseRequest) -> list[str]:
    """Tell of a round's closing."""
    if wanted.at is not None:
        return [
            f"It closes at {formats.utc(wanted.at)} with what it has then, if that can be fused.",
            "The policy's minimum is not asked for then.",
        ]
    said = [
        f"It closes now, with {formats.count(item.accepted, 'accepted contribution')}, and is "
        "fused. The policy's minimum is not asked for."
    ]
    if item.waiting or item.quarantined:
        said.append(
            f"What is still on its way ({item.waiting}) or in quarantine ({item.quarantined}) goes "
            "on to the next round."
        )
    return said


def cancel(item: Round, wanted: Request) -> list[str]:
    """Tell of a round's end without a base."""
    told = "It ends without a base, and the next one opens."
    if item.state != RoundState.OPEN:
        return [told, "What it was fusing is given up. All that it had goes on to the next one."]
    return [told, f"All that it has ({formats.count(waits(item), 'contribution')}) goes on to it."]


def again(item: Round, wanted: AgainRequest) -> list[str]:
    """Tell of another fuse of what a gate has rejected."""
    said = []
    if wanted.without:
        said.append(f"Rejected for good: {_named(wanted.without)}.")
    others = "All others" if wanted.without else "All"
    return [
        *said,
        f"{others} that the round has set aside go into the round that takes contributions now, "
        "behind what that has. What was made from a base that is too old by now is rejected.",
    ]


def policy(item: Model, wanted: Request) -> list[str]:
    """Tell of a change of the policy."""
    return ["It is in force at once, for the open round, too. Everybody can read it."]


def rollback(item: Base, wanted: RollbackRequest) -> list[str]:
    """Tell of the head's way to another base."""
    return [
        f"{item.version} is what people pull, finetune and contribute to from then on. Nothing is "
        "deleted: the other bases stay, and you can go forward again in the same way.",
        "A round that is being fused is cancelled. What waits is taken as late or refused, as the "
        "policy's after_rollback says.",
        "Everybody reads the reason.",
    ]


def evaluate(item: Base, wanted: Request) -> list[str]:
    """Tell of one more measurement."""
    return [
        "The Repository's own evaluator measures it once more as soon as it can; so it does where "
        "it had given up. Scores that come out otherwise count in place of the old ones, which "
        "stay in the list."
    ]


def replay(item: Model, wanted: ReplayRequest) -> list[str]:
    """Tell of history that is to be fused again."""
    start = wanted.start or "the newest base that has none of them in it"
    return [
        f"A worker fuses the history again behind {start}, without {_named(wanted.without)}.",
        "Nobody sees the new bases before you publish them; the old ones stay in any case.",
    ]


def publish(item: Replay, wanted: Request) -> list[str]:
    """Tell of a replay's publication."""
    return [
        f"Its {formats.count(len(item.steps), 'base')} are published behind the newest one, and "
        "the last becomes the current base. No old base changes.",
        "A round that is being fused ends without a base; what it had goes on to the next one.",
    ]


def discard(item: Replay, wanted: Request) -> list[str]:
    """Tell of a replay that is given up."""
    return ["A worker that is at it stops. Its bases go with the next garbage collection."]


def _named(ids: list[str]) -> str:
    shown = ", ".join(one[:40] for one in ids[:NAMED])
    return shown if len(ids) <= NAMED else f"{shown} and {len(ids) - NAMED} more"


def ping(item: Webhook, wanted: Request) -> list[str]:
    """Tell of a ping."""
    return ["It is sent webhook.ping, once. What the receiver answers is shown on its page."]


def pause(item: Webhook, wanted: Request) -> list[str]:
    """Tell of a webhook that is to be left alone."""
    said = ["It is sent nothing until somebody lets it go on."]
    if item.waiting:
        said.append(f"{formats.count(item.waiting, 'event')} that it waits for will wait.")
    return [*said, "What happens meanwhile is not sent later."]


def resume(item: Webhook, wanted: Request) -> list[str]:
    """Tell of a webhook that is to go on."""
    said = ["It is sent what happens from now on."]
    if item.waiting:
        said.append(f"{formats.count(item.waiting, 'event')} that waited for it is sent first.")
    return [*said, "What has happened meanwhile is not sent."]


def delete(item: Webhook, wanted: Request) -> list[str]:
    """Tell of a webhook's end."""
    said = ["It is sent nothing any more, and what was told of its deliveries is deleted."]
    if item.waiting:
        said.append(f"{formats.count(item.waiting, 'event')} that it waits for will not come.")
    return said


def redeliver(item: Delivery, wanted: Request) -> list[str]:
    """Tell of an event that is sent once more."""
    return [
        "The receiver is sent it once more, with the same webhook-id: one that has kept the id "
        "knows that it has had this before.",
    ]
