"""docker-compose.yml, server/Dockerfile and what they name, without docker."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from coldfusion_server.api.addresses import address_of
from coldfusion_server.settings import Settings
from tests.deploy import compose, dockerfile
from tests.deploy.compose import FILE, ROOT, MissingVariable
from tests.deploy.running import SEARCH, require_programs

OURS = ("api", "scheduler", "worker", "evaluator", "migrate", "admin")
ONCE = ("migrate", "bucket", "volumes", "admin")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What deploy/make-env.sh makes."""
    file = tmp_path_factory.mktemp("env") / "env"
    subprocess.run(["sh", ROOT / "deploy" / "make-env.sh", file], check=True, capture_output=True)
    return compose.read_env(file)


@pytest.fixture(scope="module")
def services(env: dict[str, str]) -> dict[str, compose.Service]:
    return compose.services(env)


def schema_complaints(file: Path) -> str:
    """Check a file against the compose specification's own JSON schema."""
    command = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [command, "--builtin-schema", "vendor.compose-spec", file], capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_compose_file_is_what_the_specification_allows(
    env: dict[str, str], tmp_path: Path
) -> None:
    assert schema_complaints(FILE) == ""
    filled = tmp_path / "filled.yml"
    filled.write_text(yaml.safe_dump(compose.load(env)), encoding="utf-8")
    assert schema_complaints(filled) == ""


def test_the_check_by_the_specification_sees_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text(FILE.read_text(encoding="utf-8").replace("read_only:", "readonly:"))
    assert "readonly" in schema_complaints(file)


def test_what_services_name_is_there(env: dict[str, str]) -> None:
    document = compose.load(env)
    for name, service in document["services"].items():
        assert set(service.get("networks", [])) <= set(document["networks"]), name
        assert set(service.get("depends_on", {})) <= set(document["services"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), volume
            else:
                assert source in document["volumes"], volume


def test_a_service_is_waited_for_until_its_health_check_says_so(
    services: dict[str, compose.Service],
) -> None:
    for service in services.values():
        for before, condition in service.depends_on.items():
            if condition["condition"] == "service_healthy":
                assert services[before].health is not None, (service.name, before)
            else:
                assert services[before].data["restart"] == "no", (service.name, before)


@pytest.mark.parametrize("name", sorted(yaml.safe_load(FILE.read_text())["services"]))
def test_containers_can_do_no_more_than_they_must(
    name: str, services: dict[str, compose.Service]
) -> None:
    data = services[name].data
    assert dockerfile.is_pinned(data["image"]), data["image"]
    assert data["read_only"] is True
    assert data["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in data["security_opt"]
    if name == "volumes":
        # Root for one chown, with nothing else to reach.
        assert (data["cap_add"], data["network_mode"]) == (["CHOWN"], "none")
    else:
        assert int(data["user"].split(":")[0]) > 0
    if name not in ONCE:
        assert services[name].health is not None
        assert data["restart"] == "unless-stopped"
        assert data["deploy"]["resources"]["limits"]["memory"]


def test_the_database_cannot_be_reached_from_the_proxy_or_from_outside(
    env: dict[str, str], services: dict[str, compose.Service]
) -> None:
    proxy, database = (set(services[name].data["networks"]) for name in ("proxy", "database"))
    assert not proxy & database
    networks = compose.load(env)["networks"]
    assert all(networks[name]["internal"] for name in database)
    assert [name for name, service in services.items() if "ports" in service.data] == ["proxy"]


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_given_settings_that_exist(
    name: str, services: dict[str, compose.Service]
) -> None:
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"][name]
    given = {key for key in document["environment"] if key.startswith("COLDFUSION_")}
    assert given <= {f"COLDFUSION_{field.upper()}" for field in Settings.model_fields}
    # Database, secret and bucket are elsewhere, so no data folder is made on a read-only disk.
    fields = {key.removeprefix("COLDFUSION_").lower(): services[name].environment[key]
              for key in given & set(services[name].environment)}  # fmt: skip
    assert not Settings(**fields).needs_folder  # type: ignore[arg-type]


def test_the_evaluator_is_started_where_env_says_so_and_brings_what_it_needs(
    services: dict[str, compose.Service],
) -> None:
    evaluator, worker = services["evaluator"], services["worker"]
    assert not evaluator.active({"store"}) and evaluator.active({"store", "evaluator"})
    given = evaluator.data["build"]["args"]["EXTRAS"].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(given) <= set(project["optional-dependencies"])
    assert {"server", "postgres", "s3", "train"} <= set(given)
    # One name for both would be the image that was built last.
    assert evaluator.data["image"] != worker.data["image"]
    assert {"args"} == evaluator.data["build"].keys() - worker.data["build"].keys()
    # It reads suites where they are mounted, and keeps nothing outside of its volume.
    mounted = dict(volume.split(":")[:2][::-1] for volume in evaluator.data["volumes"])
    _, _, suite = evaluator.command
    assert mounted[str(Path(suite).parent)] == "./deploy/suites"
    for name in ("COLDFUSION_DATA_DIR", "TMPDIR", "HF_HOME"):
        assert evaluator.environment[name].startswith("/data")
    assert mounted["/data"] == "evaluations"
    assert set(evaluator.data["networks"]) == set(worker.data["networks"])


def test_secrets_are_asked_for_and_never_the_same_twice(tmp_path: Path) -> None:
    with pytest.raises(MissingVariable):
        compose.services(compose.read_env(ROOT / ".env.example"))
    made = []
    for number in range(2):
        file = tmp_path / f"env{number}"
        command = ["sh", str(ROOT / "deploy" / "make-env.sh"), str(file)]
        subprocess.run(command, check=True, capture_output=True)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert subprocess.run(command, capture_output=True).returncode == 1, "never written over"
        made.append(compose.read_env(file))
    example = compose.read_env(ROOT / ".env.example")
    filled = {name for name, value in example.items() if not value}
    assert filled == {name for name in made[0] if made[0][name] != example[name]}
    secrets = [env[name] for env in made for name in filled]
    assert len(set(secrets)) == len(secrets)
    # Harmless in a URL, and no longer than any store takes.
    assert all(re.fullmatch("[0-9a-f]{40}", secret) for secret in secrets)


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ("198.51.100.4", "198.51.100.4"),
        ("192.168.1.7", "192.168.1.7"),
        # A proxy before ours adds to what its client has written.
        ("203.0.113.66, 198.51.100.4, 10.0.0.8", "198.51.100.4"),
    ],
)
def test_nobody_chooses_the_address_that_he_is_counted_by(
    told: str, counted: str, services: dict[str, compose.Service]
) -> None:
    trusted = services["api"].environment["COLDFUSION_TRUSTED_PROXIES"]
    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(address_of(scope))

    headers = [(b"x-forwarded-for", told.encode())]
    scope: Any = {"type": "http", "client": ("172.18.0.5", 1), "headers": headers}
    asyncio.run(ProxyHeadersMiddleware(app, trusted)(scope, None, None))  # type: ignore[arg-type]
    assert found == [counted]


def test_every_variable_is_in_the_example_or_has_a_default() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    text = FILE.read_text(encoding="utf-8").replace("$$", "")
    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert f"{name}=" in example or rest.startswith(":-"), name


@pytest.mark.parametrize("site", ["localhost", "models.example.org"])
def test_the_proxy_takes_its_configuration(
    site: str, services: dict[str, compose.Service], tmp_path: Path
) -> None:
    require_programs()
    environment = {**services["proxy"].environment, "COLDFUSION_SITE": site}
    done = subprocess.run(
        ["caddy", "adapt", "--validate", "--config", ROOT / "deploy" / "Caddyfile"],
        env={**environment, "HOME": str(tmp_path), "PATH": os.pathsep.join(SEARCH)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    routes = json.loads(done.stdout.splitlines()[0])["apps"]["http"]
    assert (routes["http_port"], routes["https_port"]) == (8080, 8443)
    # Each of the name's addresses is a replica; a static name would be one upstream for all.
    assert '"dynamic_upstreams":{"name":"api","port":"8000","source":"a"}' in done.stdout


# The image.


@pytest.fixture(scope="module")
def stages() -> list[dockerfile.Stage]:
    return dockerfile.stages(dockerfile.FILE.read_text(encoding="utf-8"))


def test_the_image_is_made_in_stages_and_holds_no_tools(stages: list[dockerfile.Stage]) -> None:
    build, final = stages
    assert build.name == "build" and final.name is None
    assert all(dockerfile.is_pinned(stage.image) for stage in stages)
    assert not any("pip" in run or "apt" in run for run in final.values("RUN"))
    assert not build.values("ADD") + final.values("ADD")
    assert final.sources == []
    assert all("--no-cache" in run or "PIP_NO_CACHE_DIR" in build.environment
               for run in build.values("RUN") if "pip" in run)  # fmt: skip


def test_the_image_runs_as_nobody_in_particular(
    stages: list[dockerfile.Stage], services: dict[str, compose.Service]
) -> None:
    assert stages[-1].values("USER") == ["10001:10001"]
    assert {services[name].data["user"] for name in OURS} == {"10001:10001"}
    # Nothing after it may be done as root again.
    names = [name for name, _ in stages[-1].instructions]
    assert "RUN" not in names[names.index("USER") :]


def test_the_image_starts_a_program_that_is_installed(stages: list[dockerfile.Stage]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    final = stages[-1]
    (entrypoint,) = final.words("ENTRYPOINT")
    assert entrypoint in project["scripts"]
    (check,) = final.values("HEALTHCHECK")
    assert f'"{entrypoint}", "health", "api"' in check
    (extras,) = [value for value in stages[0].values("ARG") if value.startswith("EXTRAS=")]
    assert set(extras.partition("=")[2].split(",")) <= set(project["optional-dependencies"])


def test_what_is_copied_into_the_image_is_there_and_not_ignored(
    stages: list[dockerfile.Stage],
) -> None:
    sources = stages[0].sources
    assert {"pyproject.toml", "constraints.txt", "migrations"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not dockerfile.ignored(source), source
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages: list[str] = wanted["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for package in packages:
        assert any(f"{package}/".startswith(f"{source}/") for source in sources), package


@pytest.mark.parametrize(
    ("path", "expected"),
    [(".env", True), (".git/config", True), ("tests/x.py", True), ("pyproject.toml", False),
     ("shared/coldfusion_shared/errors.py", False), ("shared/x/__pycache__/a.pyc", True),
     ("server/coldfusion_server/dashboard/static/app.css", False)],
)  # fmt: skip
def test_secrets_and_what_was_made_stay_out_of_the_build(path: str, expected: bool) -> None:
    assert dockerfile.ignored(path) is expected


def test_the_reader_of_dockerfiles_sees_what_it_is_to_refuse() -> None:
    bad: list[Any] = dockerfile.stages("FROM python\nADD https://x.y/z /z\nCOPY a b /c/\n")
    assert not dockerfile.is_pinned(bad[0].image)
    assert bad[0].values("ADD") == ["https://x.y/z /z"]
    assert bad[0].sources == ["a", "b"]
    assert not dockerfile.is_pinned("postgres:17")
    assert not dockerfile.is_pinned("registry.example.org:5000/postgres")
    assert dockerfile.is_pinned("postgres:17.6-bookworm@sha256:" + "0" * 64)
