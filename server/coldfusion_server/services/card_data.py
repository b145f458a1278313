"""
What a model card says to programs: the YAML at its beginning, in the hub's own words. Pure.

What is read is a stranger's text: of the keys that are taken over each has a form.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

import yaml

from coldfusion_server.services.measured import Measurements
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.evaluations import Evaluation, Suite, SuiteDataset

LIBRARY = "transformers"
TAGS = ("coldfusion", "model-merging")
# A front matter of more letters, without its scores, is none of ours.
MOST_LETTERS = 16_384
# Scores that a card lists.
MOST_RESULTS = 400
# They take YAML's reader most of a second, and nobody asks a card for them.
_SCORES = re.compile(r"^model-index:.*\n?(?:[ -].*\n?)*", re.MULTILINE)
# Front matters that a process remembers.
REMEMBERED = 64
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
# What every base of a line has from the pretrained model, and the form of each.
_INHERITED = {
    "license": re.compile(_WORD),
    "license_name": re.compile(_WORD),
    "license_link": re.compile(r"https://[!-~]{1,200}|LICENSE"),
    "base_model": re.compile(rf"(?=.{{1,96}}$){_HUB_ID.pattern}"),
    "pipeline_tag": re.compile(r"[a-z0-9][a-z0-9-]{0,59}"),
}
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{1,8})*")
MOST_LANGUAGES = 100
# By the end of an architecture's name.
_PIPELINES = {
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "Model": "feature-extraction",
}
# As the hub calls kinds of task; others keep our names.
_TASKS = {
    "classification": "text-classification",
    "regression": "text-classification",
    "multi-label": "text-classification",
    "causal-language-modelling": "text-generation",
    "instruction": "text-generation",
    "masked-language-modelling": "fill-mask",
    "seq2seq": "text2text-generation",
}


def parse(card: str) -> Mapping[str, Any]:
    """Return what a card's front matter says, scores apart; empty where it cannot be read."""
    head, separator, _ = card.removeprefix("---\n").partition("\n---")
    if not card.startswith("---\n") or not separator:
        return {}
    head = _SCORES.sub("", head)
    return _loaded(head) if len(head) <= MOST_LETTERS else {}


@lru_cache(maxsize=REMEMBERED)
def _loaded(head: str) -> Mapping[str, Any]:
    try:
        # Not by libyaml, which ends the process where lists are nested deeply.
        found = yaml.safe_load(head)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def inherited(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what of a card's data goes on to all bases that come from its model."""
    kept: dict[str, Any] = {}
    for name, form in _INHERITED.items():
        value = found.get(name)
        if isinstance(value, str) and form.fullmatch(value):
            kept[name] = value
    languages = found.get("language")
    listed = [languages] if isinstance(languages, str) else languages
    if isinstance(listed, list) and 0 < len(listed) <= MOST_LANGUAGES and _are_languages(listed):
        kept["language"] = languages
    return kept


def of_pretrained(
    found: Mapping[Any, Any], config: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """
    Return what all bases have from the pretrained model.

    Args:
        found: what its own card says.
        config: its config.json.
        source: where it came from; an id of the hub is what the line is based on.
    """
    kept = inherited(found)
    # Its own ancestors are its own card's business.
    kept.pop("base_model", None)
    if _INHERITED["base_model"].fullmatch(source):
        kept["base_model"] = source
    pipeline = _pipeline(config.get("architectures"))
    if pipeline is not None:
        kept.setdefault("pipeline_tag", pipeline)
    return kept


def front_matter(
    manifest: Manifest, kept: Mapping[str, Any], index: list[dict[str, Any]] | None = None
) -> str:
    """
    Return the YAML of a base's card.

    Args:
        manifest: what it is.
        kept: what it has from the pretrained model.
        index: its scores, as `model_index` lists them; null: there are none yet.
    """
    data: dict[str, Any] = {"library_name": LIBRARY, **kept, "tags": list(TAGS)}
    if "base_model" in kept and manifest.parent is not None:
        data["base_model_relation"] = "merge"
    data["coldfusion"] = _lineage(manifest)
    if index is not None:
        data["model-index"] = index
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def model_index(
    model: str, version: str, measured: Measurements, url: str | None
) -> list[dict[str, Any]] | None:
    """
    Return the scores of a base as the hub's cards list them; null where nothing was measured.

    Args:
        model: the model's name.
        version: the base's.
        measured: what was measured of it.
        url: of the card that shows them to people; null: nobody knows one.
    """
    results = [
        result for item in measured.evaluations for result in _results(item, measured.suites, url)
    ]
    if not results:
        return None
    return [{"name": f"{model} {version}", "results": results[:MOST_RESULTS]}]


def _are_languages(listed: list[Any]) -> bool:
    return all(isinstance(item, str) and _LANGUAGE.fullmatch(item) for item in listed)


def _pipeline(architectures: Any) -> str | None:
    if not isinstance(architectures, list) or not architectures:
        return None
    name = str(architectures[0])
    return next((tag for ending, tag in _PIPELINES.items() if name.endswith(ending)), None)


def _lineage(manifest: Manifest) -> dict[str, Any]:
    parent = manifest.parent
    facts = {
        "model": manifest.model,
        "version": manifest.version,
        "parent": None if parent is None else parent.version,
        "parent_commit": None if parent is None else parent.digest[:40],
        "round": manifest.round,
        "replays": manifest.replays,
        "method": None if manifest.recipe is None else manifest.recipe.method,
        "contributions": len(manifest.contributions) if parent is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _results(
    item: Evaluation, suites: Mapping[str, Suite], url: str | None
) -> Iterable[dict[str, Any]]:
    suite = suites.get(item.suite_digest or "")
    known: Collection[SuiteDataset] = () if suite is None else suite.datasets
    by_name = {dataset.name: dataset for dataset in known}
    for name, value in item.scores.items():
        dataset = by_name.get(name)
        kind = "other" if dataset is None else dataset.task
        metric = item.metric if dataset is None else dataset.metric
        error = item.standard_errors.get(name)
        yield {
            "task": {"type": _TASKS.get(kind, kind)},
            "dataset": {"type": item.suite, "name": name, **_revision(item)},
            "metrics": [
                {
                    "type": metric,
                    "name": f"{metric} in percent, {item.protocol}",
                    "value": round(value, 4),
                    **({} if error is None else {"args": {"standard_error": round(error, 4)}}),
                }
            ],
            # The hub's clients take no name without a URL.
            **({} if url is None else {"source": {"name": item.evaluator, "url": url}}),
        }


def _revision(item: Evaluation) -> dict[str, str]:
    """A suite's digest says on which data this was measured."""
    return {} if item.suite_digest is None else {"revision": item.suite_digest}
