"""
Runs what docker-compose.yml says, as plain processes.

Commands, environments, health checks, and the order in which services wait for each other are taken
from the file. What a network of containers would give is put in by a table: names and ports of
others become ports of 127.0.0.1, and the folders of a container become folders of the test.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.deploy import compose, dockerfile
from tests.deploy.compose import ROOT, Service
from tests.e2e.programs import wait_until
from tests.ports import free_ports

# Programs of the images; ours are in the tests' own environment.
PROGRAMS = {"caddy": "caddy", "wget": "wget", "pg_isready": "postgresql-client"}
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
SEARCH = [str(Path(sys.executable).parent), *map(str, POSTGRES), os.environ["PATH"]]
# Nothing of them is started here: PostgreSQL is the tests' own, and no volume has another owner.
ELSEWHERE = ("database", "volumes")


def require_programs() -> None:
    """Skip the test where a program of the images is not installed."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=os.pathsep.join(SEARCH)) is None:
            pytest.skip(f"{program} is not installed: apt-get install {package}")


@dataclass
class Container:
    """One replica of a service."""

    service: Service
    entrypoint: list[str]
    folder: Path
    environment: dict[str, str]
    texts: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def words(self, words: list[str]) -> list[str]:
        """Return a command with the table's texts in it."""
        return [_replaced(word, self.texts) for word in words]

    def start(self) -> None:
        """Start what the container would start."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.words([*self.entrypoint, *self.service.command]),
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *words: str) -> str:
        """Run another command of the same image, as `docker compose run` does."""
        done = subprocess.run(
            [*self.entrypoint, *words],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=3000,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def is_healthy(self) -> bool:
        """Run the health check that the file gives."""
        assert self.service.health is not None
        assert self.process is None or self.process.poll() is None, self.log
        done = subprocess.run(
            self.words(self.service.health),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            timeout=300,
        )
        return done.returncode == 0

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its exit status; harmless if it has ended."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def log(self) -> str:
        """What it has written so far."""
        return (self.folder / "log").read_text(encoding="utf-8")


class Stack:
    """The services of docker-compose.yml, with what they need from elsewhere."""

    def __init__(self, folder: Path, env: Mapping[str, str], database: URL, store: str) -> None:
        """
        Start nothing yet.

        Args:
            folder: for what the containers would keep.
            env: the variables of ``.env``.
            database: a database of PostgreSQL's that asks for no password.
            store: host and port of the S3 store.
        """
        self.folder = folder
        self.site, self.s3_site, http, health, self.api_ports = _ports(env)
        variables = {**env, "COLDFUSION_SITE": self.site, "COLDFUSION_S3_SITE": self.s3_site}
        variables["COLDFUSION_S3_PUBLIC_ENDPOINT"] = f"https://{self.s3_site}"
        self.services = compose.services(variables)
        self.profiles = {name for name in env["COMPOSE_PROFILES"].split(",") if name}
        upstreams = " ".join(f"127.0.0.1:{port}" for port in self.api_ports)
        url = database.render_as_string().partition("://")[2]
        # The table: what a container sees, and what stands for it here.
        self.texts = {
            f"coldfusion:{env['POSTGRES_PASSWORD']}@database:5432/coldfusion": url,
            "http://store:9000": f"http://{store}",
            "store:9000": store,
            "dynamic a api 8000": f"to {upstreams}",
            "http://127.0.0.1:8090/": f"http://127.0.0.1:{health}/",
            "/etc/caddy/Caddyfile": str(ROOT / "deploy" / "Caddyfile"),
            "5432": str(database.port),
        }
        self.variables = {
            "COLDFUSION_HOST": "127.0.0.1",
            "HTTP_PORT": str(http),
            "HTTPS_PORT": self.site.partition(":")[2],
            "HEALTH_PORT": str(health),
        }
        self.containers: dict[str, list[Container]] = {
            name: [self._container(service, number) for number in range(service.replicas)]
            for name, service in self.services.items()
        }

    @property
    def url(self) -> str:
        """Where clients reach the API."""
        return f"https://{self.site}"

    @property
    def authority(self) -> Path:
        """The certificate of the proxy's own authority."""
        (proxy,) = self.containers["proxy"]
        return proxy.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    def up(self) -> None:
        """Start everything, each service when those before it are as it wants them."""
        for service in self.services.values():
            if service.active(self.profiles):
                self._up(service)

    def down(self) -> None:
        """Leave nothing running, also where a test has failed."""
        for containers in self.containers.values():
            for container in containers:
                if container.process is not None and container.process.poll() is None:
                    container.process.kill()
                    container.process.wait()

    def running(self) -> list[Container]:
        """Return what runs, or has run and has ended since, one-shot services apart."""
        return [
            container
            for containers in self.containers.values()
            for container in containers
            if container.process is not None and container.service.data["restart"] != "no"
        ]

    def logs(self) -> str:
        """Return all that was written, for a test that has failed."""
        return "\n".join(
            f"--- {file.parent.name}\n{file.read_text()}" for file in self.folder.glob("*/log")
        )

    def _up(self, service: Service) -> None:
        containers = self.containers[service.name]
        if service.name in ELSEWHERE or containers[0].process is not None:
            return
        for name, condition in service.depends_on.items():
            before = self.services[name]
            if not before.active(self.profiles):
                assert condition.get("required", True) is False, (service.name, name)
                continue
            self._up(before)
            self._wait(before, condition["condition"])
        for container in containers:
            container.start()

    def _wait(self, service: Service, condition: str) -> None:
        for container in self.containers[service.name]:
            if condition == "service_healthy":
                wait_until(container.is_healthy, f"{service.name} to be healthy")
            elif service.name not in ELSEWHERE:
                assert container.process is not None
                assert container.process.wait(300) == 0, container.log

    def _container(self, service: Service, number: int) -> Container:
        folder = self.folder / f"{service.name}-{number + 1}"
        folder.mkdir()
        ours = "build" in service.data
        (*_, image) = dockerfile.stages(dockerfile.FILE.read_text(encoding="utf-8"))
        entrypoint = image.words("ENTRYPOINT") if ours else []
        built_in = {**image.environment, "PATH": ""} if ours else {"XDG_DATA_HOME": "/data"}
        environment = {**built_in, **service.environment, **self.variables}
        if service.name == "api":
            environment["COLDFUSION_PORT"] = str(self.api_ports[number])
        texts = {**self.texts, "/tmp": str(folder)}
        environment = {name: _replaced(value, texts) for name, value in environment.items()}
        for name, value in environment.items():
            # A volume, which only some services have.
            if value.startswith("/data"):
                environment[name] = f"{folder}{value.removeprefix('/data')}"
        environment.update(PATH=os.pathsep.join(SEARCH), HOME=str(folder), OMP_NUM_THREADS="1")
        return Container(service, entrypoint, folder, environment, texts)


def _ports(env: Mapping[str, str]) -> tuple[str, str, int, int, list[int]]:
    """Choose ports for both sites, plain HTTP, the proxy's health and the API's replicas."""
    replicas = compose.services(env)["api"].replicas
    https, s3, http, health, *api = free_ports(4 + replicas)
    return f"localhost:{https}", f"localhost:{s3}", http, health, api


def _replaced(text: str, table: Mapping[str, str]) -> str:
    # In one go: what took a place may itself hold what is looked for, such as /tmp.
    pattern = "|".join(re.escape(seen) for seen in sorted(table, key=len, reverse=True))
    return re.sub(pattern, lambda found: table[found[0]], text)
