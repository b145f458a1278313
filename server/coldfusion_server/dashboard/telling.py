"""Charts in words, for who hears them; and what a chart's numbers come to. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coldfusion_server.dashboard import formats
from coldfusion_server.dashboard.scores import Gain, Series
from coldfusion_server.dashboard.values import Value

# So many values are read out; of more the ends and the extremes.
READ_OUT = 8


def line(labels: Sequence[str], values: Sequence[Value | None]) -> str:
    """Return what a line over the bases shows."""
    known = [
        (label, value)
        for label, value in zip(labels, values, strict=True)
        if value is not None
    ]  # fmt: skip
    if len(known) <= READ_OUT:
        return ", ".join(f"{label} {formats.value(value)}" for label, value in known)
    lowest = min(known, key=lambda item: item[1].score)
    highest = max(known, key=lambda item: item[1].score)
    named = [("from", known[0]), ("to", known[-1]), ("lowest", lowest), ("highest", highest)]
    return ", ".join(f"{word} {label} {formats.value(value)}" for word, (label, value) in named)


# Whether the last base is better than the first, so that the points can follow.
_BETTER = {
    "better": "is better than",
    "worse": "is worse than",
    "same": "is as good as",
    "unclear": "is not measurably better or worse than",
    "one seed": "cannot be told apart from chance beside",
    "unknown": "cannot be told apart from chance beside",
}


def standing(version: str, headline: Series | None) -> str:
    """Return which base is the current one and whether it is better than v0, in a sentence."""
    current = f"{version} is the current base"
    if version == "v0":
        return f"{current}: the pretrained model, before any round."
    if headline is None or not headline.compared:
        return f"{current}; whether it is better than v0 has not been measured."
    measured = headline.versions[-1]
    who = "and" if measured == version else f"not measured yet; {measured}"
    change = formats.gain(headline.change)
    return (
        f"{current}, {who} {_BETTER[headline.verdict]} v0: {change} points on average "
        f"({headline.protocol}, {formats.count(len(headline.names), 'data set')})."
    )


def gains(series: Series) -> str:
    """Return on how many data sets the last base is better than the first, in one sentence."""
    rows = [gain.value for gain in series.gains_by_dataset]
    better = sum(value.score > 0 for value in rows)
    text = f"{series.versions[-1]} is better than {series.versions[0]} on {better} of "
    text += formats.count(len(rows), "data set")
    if any(value.explained is not None for value in rows):
        clear = sum(value.clear for value in rows)
        text += f"; {clear} of the {len(rows)} differences {'is' if clear == 1 else 'are'} more"
        text += " than chance explains"
    return text + "."


def extremes(gains: Sequence[Gain]) -> str:
    """Return the ends of a list that is sorted from the best to the worst."""
    ends = gains if len(gains) < 2 else (gains[0], gains[-1])
    return ", ".join(f"{gain.name} {formats.gain(gain.value)}" for gain in ends)
