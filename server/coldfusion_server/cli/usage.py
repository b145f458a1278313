"""`coldfusion-server usage`: who uses how much of the store."""

from __future__ import annotations

from coldfusion_server.cli.options import DatabaseUrl, DataDir, Json, opened
from coldfusion_server.cli.output import show, table

# Of a base whose manifest is damaged.
NOT_ALL = "Of that base only what people pull is counted."


def usage(
    data_dir: DataDir = None, database_url: DatabaseUrl = None, as_json: Json = False
) -> None:
    """Show what bases, contributions and unfinished uploads take, by model and by contributor."""
    from coldfusion_server.cli.operator import OPERATOR
    from coldfusion_server.dashboard.formats import size
    from coldfusion_server.services.usage import all_usage

    with opened(data_dir, database_url) as context:
        found = all_usage(context, OPERATOR)
    models = [
        (m.model, m.bases, size(m.base_bytes), m.contributions, size(m.kept_bytes),
         m.uploads, size(m.unfinished_bytes))
        for m in found.models
    ]  # fmt: skip
    people = [
        (c.contributor, c.contributions, size(c.kept_bytes), c.uploads, size(c.unfinished_bytes))
        for c in found.contributors
    ]
    tail = ("CONTRIBUTIONS", "SIZE", "UNFINISHED", "SIZE")
    text = [
        table(("MODEL", "BASES", "SIZE", *tail), models),
        "",
        table(("CONTRIBUTOR", *tail), people),
        "",
        f"In all {size(found.total_bytes)}; what models share counts once, garbage not at all.",
        *(f"{sentence} {NOT_ALL}" for model in found.models for sentence in model.damaged),
    ]
    show(found.model_dump(mode="json"), as_json, "\n".join(text))
