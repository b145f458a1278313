"""Model cards: what they say to programs, in the hub's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from coldfusion_server.services import card_data, cards, models
from coldfusion_shared.schemas.models import Policy
from tests.server.gated import fused, gated, post
from tests.server.repository import ANY_UPDATE, MODEL, Repository, tiny_folder

FILES = f"/v1/models/{MODEL}/bases"
CARD = """---
license: other
license_name: our-own
license_link: https://example.org/licence
language: [en, de]
pipeline_tag: fill-mask
base_model: somebody/else
widget: <script>
model-index: [{name: x}]
---
# Somebody's
"""


def card(repo: Repository, version: str) -> Any:
    """Return a card as the hub's clients read it."""
    read: Any = ModelCard
    return read(repo.client().get(f"{FILES}/{version}/files/README.md").text)


def test_a_published_card_tells_the_scores_that_its_gate_went_by(repo: Repository) -> None:
    gated(repo)
    (candidate,) = fused(repo)
    for subject in ("bases/v0", candidate["id"]):
        assert post(repo, subject, 80.0).status_code == 201
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v1"
    found = card(repo, "v1").data
    results = found.eval_results
    assert found.model_name == f"{MODEL} v1" and results is not None
    assert {item.dataset_type for item in results} == {"text-2"}
    assert all(item.metric_value is not None for item in results)
    assert found.to_dict()["coldfusion"]["parent"] == "v0"
    # Nothing was known of it when it was stored, and it never changes.
    assert card(repo, "v0").data.eval_results is None
    # What is told of the base is what lies there.
    base = repo.get(f"{FILES}/v1")
    assert base["manifest"]["files"][0]["path"] == cards.CARD_FILE
    assert repo.get(f"{FILES}/v1/signature")


def test_what_the_pretrained_model_says_of_itself_goes_on(
    empty: Repository, tmp_path: Path
) -> None:
    tmp_path = tmp_path / "source"
    tmp_path.mkdir()
    folder = tiny_folder(tmp_path)
    (folder / "README.md").write_text(CARD)
    policy = Policy(screening=ANY_UPDATE)
    models.create_model(empty.ctx, MODEL, folder, "lab/encoder", policy, public=True)
    fused(empty)
    for version, relation in (("v0", None), ("v1", "merge")):
        found = card(empty, version).data.to_dict()
        assert found["license"] == "other" and found["license_name"] == "our-own"
        assert found["language"] == ["en", "de"] and found["pipeline_tag"] == "fill-mask"
        assert found["base_model"] == "lab/encoder"
        assert found.get("base_model_relation") == relation
        assert "widget" not in found and "model-index" not in found
        assert "pretrained model that the line began with: other." in card(empty, version).text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# No front matter",
        "---\nlicense: mit\n",
        "---\n- a list\n---\n",
        "---\nlicense: !!python/object/apply:os.system [id]\n---\n",
        "---\n" + "[" * 50_000 + "\n---\n",
        "---\nlicense: mit\n" + "#" * card_data.MOST_LETTERS + "\n---\n",
        "---\nlicense: [mit]\nlanguage: {a: b}\nbase_model: ../../x\nlicense_link: file:///x\n---\n",
        "---\nlicense: 'a b'\nlanguage: ['<b>']\npipeline_tag: Fill Mask\n---\n",
    ],
)
def test_what_is_no_data_of_a_card_is_left(text: str) -> None:
    assert card_data.inherited(card_data.parse(text)) == {}


def test_scores_of_many_data_sets_take_nothing_from_the_rest() -> None:
    results = "".join(f"  - dataset: {{name: d{n}}}\n" for n in range(5000))
    text = f"---\nlicense: mit\nmodel-index:\n- name: x\n  results:\n{results}tags: [a]\n---\n"
    assert card_data.parse(text) == {"license": "mit", "tags": ["a"]}


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("BertModel", "feature-extraction"),
        ("RobertaForMaskedLM", "fill-mask"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("Unheard", None),
    ],
)
def test_the_kind_of_pipeline_is_what_the_architecture_is_for(
    architecture: str, kind: str | None
) -> None:
    found = card_data.of_pretrained({}, {"architectures": [architecture]}, "folder x")
    assert found == ({} if kind is None else {"pipeline_tag": kind})
