"""Policies: what a round is fused by, checked when it is set, carried out when the round closes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_server.services import models
from coldfusion_server.services.closing import close_by_hand
from coldfusion_shared.errors import InvalidRequest, RoundNotClosable, UnknownName
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.weights.checkpoint import Checkpoint
from tests.server.repository import (
    ANY_UPDATE,
    MODEL,
    Repository,
    body_of,
    tiny_folder,
    tiny_tensors,
)
from tests.shared.checkpoints import BFLOAT16, Array, file_bytes, read_file

Json = Any


def weights_of(repo: Repository, version: str) -> dict[str, Array]:
    answer = repo.client().get(f"/v1/models/{MODEL}/bases/{version}/files/model.safetensors")
    assert answer.status_code == 200
    return read_file(answer.content)


def manifest_of(repo: Repository, version: str) -> Manifest:
    shown = repo.get(f"/v1/models/{MODEL}/bases/{version}")
    return Manifest.model_validate(shown["manifest"])


def round_of(repo: Repository, base: str, bodies: list[dict[str, Array]]) -> str:
    """Let contributors send `bodies`, made from `base`, and fuse; return the new base."""
    for place, body in enumerate(bodies):
        repo.contributor(f"c{place}").contribute(file_bytes(body), base=base)
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work()
    version = f"v{int(base[1:]) + 1}"
    assert repo.get(f"/v1/models/{MODEL}")["current"] == version
    return version


def finetuned(repo: Repository, base: str, seeds: list[int]) -> list[dict[str, Array]]:
    return [body_of(weights_of(repo, base), seed) for seed in seeds]


def put_policy(repo: Repository, role: str, **policy: Any) -> Json:
    client = repo.client(repo.token(f"a-{role}", role))
    return client.put(f"/v1/models/{MODEL}/policy", json={"screening": ANY_UPDATE, **policy})


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"method": "krum"}, "at least 3"),
        ({"method": "krum", "parameters": {"byzantine": 2}, "min_contributions": 6}, "at least 7"),
        ({"method": "bulyan", "min_contributions": 2}, "at least 3"),
        ({"method": "multi_krum", "parameters": {"keep": 9}, "min_contributions": 5}, "at least 9"),
        ({"method": "ties", "parameters": {"density": 0}}, "density"),
        ({"method": "mean", "parameters": {"density": 0.5}}, "no such parameter"),
        ({"method": "slerp", "max_contributions": 3}, "takes 2"),
        ({"method": "fisher"}, "Fisher"),
        ({"method": "greedy_soup"}, "score"),
        ({"optimizer": "adam", "optimizer_parameters": {"beta1": 1}}, "beta1"),
        ({"method": "median", "contributor_weights": {"ann": 2.0}}, "takes no weights"),
    ],
)
def test_a_policy_that_could_never_fuse_is_refused_when_it_is_set(
    tmp_path: Path, repo: Repository, policy: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        models.create_model(
            repo.ctx, "demo/other", tiny_folder(tmp_path / "m"), "tests", Policy(**policy),
            public=True,
        )  # fmt: skip
    before = repo.get(f"/v1/models/{MODEL}")["policy"]
    answer = put_policy(repo, "maintainer", **policy)
    assert answer.status_code in (400, 422)
    assert words in answer.json()["detail"]
    assert repo.get(f"/v1/models/{MODEL}")["policy"] == before


def test_unknown_names_are_refused_with_those_that_there_are(repo: Repository) -> None:
    for wrong in ({"method": "nonsense"}, {"optimizer": "nonsense"}):
        with pytest.raises(UnknownName) as caught:
            models.check_policy(Policy(**wrong))  # type: ignore[arg-type]
        assert "Known" in (caught.value.hint or "")
        assert put_policy(repo, "maintainer", **wrong).status_code in (400, 404, 422)


@pytest.mark.parametrize("value", [0, -1, "fast", 1e9])
def test_a_server_lr_is_a_number_in_range_or_auto(repo: Repository, value: Any) -> None:
    assert put_policy(repo, "maintainer", server_lr=value).status_code == 422
    assert put_policy(repo, "maintainer", server_lr="auto").status_code == 200


def test_a_changed_policy_is_in_force_from_the_open_round_on(repo: Repository) -> None:
    round_of(repo, "v0", finetuned(repo, "v0", [1, 2, 3]))
    assert put_policy(repo, "maintainer", method="median").status_code == 200
    bodies = finetuned(repo, "v1", [4, 5, 6])
    round_of(repo, "v1", bodies)
    recipes = [manifest_of(repo, version).recipe for version in ("v1", "v2")]
    assert [recipe.method for recipe in recipes if recipe] == ["mean", "median"]
    fused = weights_of(repo, "v2")
    for name in bodies[0]:
        middle = np.median([body[name] for body in bodies], axis=0)
        assert np.allclose(fused[name], middle, rtol=1e-6, atol=1e-7)


def test_of_two_changes_at_once_none_is_lost(repo: Repository) -> None:
    max_ = repo.principal("max", "maintainer")

    def changed(**values: Any) -> Any:
        def change(before: Policy) -> Policy:
            return Policy.model_validate(before.model_dump() | values)

        return models.change_policy(repo.ctx, MODEL, change, max_)

    with ThreadPoolExecutor() as pool:

        def meanwhile(before: Policy) -> Policy:
            others.append(pool.submit(changed, max_staleness=7))
            # It is to wait for us, so that nothing tells when it would have been done.
            wait(others, timeout=0.5)
            return Policy.model_validate(before.model_dump() | {"min_contributors": 2})

        others: list[Future[Any]] = []
        models.change_policy(repo.ctx, MODEL, meanwhile, max_)
        others[0].result(timeout=300)
    policy = repo.get(f"/v1/models/{MODEL}")["policy"]
    assert (policy["min_contributors"], policy["max_staleness"]) == (2, 7)


def test_a_method_by_value_has_no_weights_and_the_pages_say_so(repo: Repository) -> None:
    put_policy(repo, "maintainer", method="median")
    round_of(repo, "v0", finetuned(repo, "v0", [1, 2, 3]))
    assert [item.weight for item in manifest_of(repo, "v1").contributions] == [None] * 3
    page = repo.client().get(f"/models/{MODEL}/bases/v1")
    assert page.status_code == 200 and "by value" in page.text
    assert repo.client().get(f"/models/{MODEL}").status_code == 200
    card = repo.client().get(f"/v1/models/{MODEL}/bases/v1/files/README.md").text
    assert "median" in card and "value by value" in card


def test_one_giant_moves_a_clipped_mean_little(repo: Repository) -> None:
    put_policy(repo, "maintainer", method="norm_clipped_mean")
    start = weights_of(repo, "v0")
    bodies = [*finetuned(repo, "v0", [1, 2, 3]), body_of(start, 4, scale=1.0)]
    round_of(repo, "v0", bodies)
    weights = [item.weight for item in manifest_of(repo, "v1").contributions]
    assert weights[3] is not None and weights[3] < 0.001
    assert max(abs((weights_of(repo, "v1")[name] - start[name]).max()) for name in bodies[0]) < 0.01


def test_krum_cannot_be_closed_by_hand_with_too_few(repo: Repository) -> None:
    put_policy(repo, "maintainer", method="krum", min_contributions=3)
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(file_bytes(body_of(tiny_tensors(), seed)))
    repo.work()
    with pytest.raises(RoundNotClosable, match="krum needs 3"):
        close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))


def test_momentum_goes_on_from_round_to_round_and_another_optimizer_starts_anew(
    repo: Repository,
) -> None:
    nesterov = {"optimizer": "nesterov", "optimizer_parameters": {"beta": 0.5}, "server_lr": 0.7}
    put_policy(repo, "maintainer", **nesterov)
    momentum: dict[str, Array] = {}
    for number in range(3):
        before = weights_of(repo, f"v{number}")
        bodies = finetuned(repo, f"v{number}", [2 * number, 2 * number + 1])
        after = weights_of(repo, round_of(repo, f"v{number}", bodies))
        for name in bodies[0]:
            mean = np.mean([body[name].astype(float) - before[name] for body in bodies], axis=0)
            kept = 0.5 * momentum.get(name, np.zeros_like(mean)) + mean
            momentum[name] = kept
            assert np.allclose(after[name], before[name] + 0.7 * (mean + 0.5 * kept), atol=1e-7)
        manifest = manifest_of(repo, f"v{number + 1}")
        assert manifest.optimizer_steps == number + 1
        assert [file.path for file in manifest.optimizer_state] == ["momentum/model.safetensors"]
    put_policy(repo, "maintainer", optimizer="adam")
    manifest = manifest_of(repo, round_of(repo, "v3", finetuned(repo, "v3", [8, 9])))
    assert manifest.optimizer_steps == 1
    assert len(manifest.optimizer_state) == 2


def test_a_pull_goes_back_to_the_first_base(repo: Repository) -> None:
    put_policy(repo, "maintainer", pull=1.0)
    round_of(repo, "v0", finetuned(repo, "v0", [1, 2]))
    round_of(repo, "v1", finetuned(repo, "v1", [3, 4]))
    start, end = weights_of(repo, "v0"), weights_of(repo, "v2")
    assert all(np.array_equal(start[name], end[name]) for name in start)


def test_a_server_lr_and_auto_are_kept_in_the_manifest(repo: Repository) -> None:
    put_policy(repo, "maintainer", server_lr=2.0)
    before, bodies = weights_of(repo, "v0"), finetuned(repo, "v0", [1, 2])
    after = weights_of(repo, round_of(repo, "v0", bodies))
    for name in bodies[0]:
        mean = np.mean([body[name].astype(float) - before[name] for body in bodies], axis=0)
        assert np.allclose(after[name] - before[name], 2 * mean, atol=1e-6)
    put_policy(repo, "maintainer", server_lr="auto")
    version = round_of(repo, "v1", finetuned(repo, "v1", [3, 4]))
    eta = manifest_of(repo, version).server_lr
    assert eta is not None and 1.2 < eta < 1.6


def test_a_coarse_model_keeps_a_master_that_no_round_is_lost_in(tmp_path: Path) -> None:
    repo = Repository(tmp_path)
    floats = {n: t.astype(BFLOAT16) for n, t in tiny_tensors().items() if t.dtype == np.float32}
    start = {**tiny_tensors(), **floats}
    # Each round moves all values by the same.
    screening = {**ANY_UPDATE, "copies": {"enabled": False}}
    repo.model(tensors=start, min_contributions=1, screening=screening)
    body = [name for name in floats if not name.startswith("classifier")]
    exact = {name: start[name].astype(float) for name in body}
    for number in range(4):
        before = weights_of(repo, f"v{number}")
        # Other ones each time: the same update again would be taken for a copy.
        step = np.float32(1e-4 + 1e-6 * number)
        moved = {name: before[name].astype(np.float32) + step for name in body}
        for name in body:
            exact[name] += moved[name].astype(float) - before[name].astype(float)
        round_of(repo, f"v{number}", [moved])
        manifest = manifest_of(repo, f"v{number + 1}")
        (file,) = manifest.master
        with Checkpoint({file.path: repo.ctx.store.source(file.sha256)}) as master:
            published = weights_of(repo, f"v{number + 1}")
            for name in body:
                tensor = master.tensors[name]
                values = tensor.values(0, tensor.span.elements).reshape(exact[name].shape)
                assert values.dtype == np.float32
                assert np.allclose(values, exact[name], rtol=2e-7, atol=1e-7)
                assert np.array_equal(values.astype(BFLOAT16), published[name])
    # Contributors never see the master.
    assert repo.client().get(f"/v1/models/{MODEL}/bases/v4/files/master").status_code == 404
    repo.ctx.close()


def test_anybody_can_list_what_there_is_to_fuse_with(repo: Repository) -> None:
    found = repo.get("/v1/fusion")
    names = {entry["name"] for entry in found["methods"]}
    assert {"mean", "ties", "geometric_median", "bulyan"} <= names and len(names) == 20
    assert {entry["name"] for entry in found["optimizers"]} == {
        "none", "momentum", "nesterov", "adam", "yogi",
    }  # fmt: skip
    for entry in found["methods"] + found["optimizers"]:
        assert entry["summary"] and entry["paper"].startswith("https://")
        assert all(parameter["description"] for parameter in entry["parameters"])


def test_an_optimizer_goes_on_when_what_was_equal_comes_apart(tmp_path: Path) -> None:
    repo = Repository(tmp_path)
    layer = np.random.default_rng(5).standard_normal((8, 8)).astype(np.float32)
    names = [f"encoder.layer.{i}.dense.weight" for i in range(2)]
    start = {**tiny_tensors(), **dict.fromkeys(names, layer)}
    repo.model(tensors=start, min_contributions=1)
    apart_is_fine = {**ANY_UPDATE, "tied": {"action": "warn"}}
    rules = {"optimizer": "adam", "min_contributions": 1, "screening": apart_is_fine}
    assert put_policy(repo, "maintainer", **rules).status_code == 200
    equal = body_of(start, 1)
    equal[names[1]] = equal[names[0]]
    round_of(repo, "v0", [equal])
    round_of(repo, "v1", [body_of(weights_of(repo, "v1"), 2)])
    assert manifest_of(repo, "v2").optimizer_steps == 2
    apart = weights_of(repo, "v2")
    assert not np.array_equal(apart[names[0]], apart[names[1]])
    repo.ctx.close()


def test_a_fault_of_ours_fails_the_round_with_a_reason(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("coldfusion_server.services.fusing.make_plan", broken)
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(file_bytes(body_of(tiny_tensors(), seed)))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("max", "maintainer"))
    repo.work(limit=3)
    shown = repo.get(f"/v1/models/{MODEL}/rounds/1")
    assert shown["state"] == "failed" and "oops" in shown["reason"]
    monkeypatch.undo()
    repo.clock.advance(minutes=10)
    repo.work()
    assert repo.get(f"/v1/models/{MODEL}")["current"] == "v1"
