"""What `doctor` looks at: server, token, proxies, cache and what finetunes, one check each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from coldfusion_client.api import Api
from coldfusion_client.cache import default_cache
from coldfusion_client.config import is_exposed
from coldfusion_client.opening import choose, open_briefly
from coldfusion_client.permission import may_contribute
from coldfusion_shared import __version__
from coldfusion_shared.errors import ColdFusionError

SECONDS = 10.0
# Signed URLs of an object store are refused with a clock that is off by a quarter of an hour.
CLOCK_SECONDS = 300.0
ROOM_BYTES = 5e9
EXPIRES_SOON_DAYS = 7
TRAINING = ("torch", "transformers", "accelerate", "datasets")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Verdict(StrEnum):
    """What a check says."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """One check's result: `message` says what was seen, `hint` what to do about it."""

    check: str
    verdict: Verdict
    message: str
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return asdict(self)


def check_up(server: str | None) -> Iterator[Finding]:
    """Yield the findings of all checks, one after the other, as they are made."""
    yield Finding("client", Verdict.OK, f"coldfusion {__version__}")
    try:
        url, token = choose(server)
    except ColdFusionError as error:
        yield _failed("server", error)
    else:
        yield from _network(url)
        with open_briefly(url, token, SECONDS) as api:
            yield from check_server(api, token)
    yield _cache(default_cache().root)
    yield from _training()


def _network(url: str) -> Iterator[Finding]:
    yield proxies(url, getproxies(), bypassed=proxy_bypass(urlsplit(url).hostname or ""))
    for name in _CERTIFICATES:
        value = os.environ.get(name)
        if value and not Path(value).exists():
            hint = "Correct the path, or take the variable out of the environment."
            yield Finding("tls", Verdict.FAILED, f"{name} names {value}, which is not there.", hint)


def proxies(url: str, known: dict[str, str], *, bypassed: bool) -> Finding:
    """Say through which of the `known` proxies (URL by scheme) requests to `url` go."""
    scheme = urlsplit(url).scheme
    proxy = known.get(scheme) or known.get("all")
    if proxy is None:
        return Finding("proxy", Verdict.OK, "none is set")
    # Without a name and a password, which may be in it.
    shown = proxy.rpartition("://")[2].rpartition("@")[2].rstrip("/")
    if bypassed:
        return Finding("proxy", Verdict.OK, f"{shown} is set, and not used for this server")
    return Finding("proxy", Verdict.OK, f"requests go through {shown}")


def check_server(api: Api, token: str | None) -> Iterator[Finding]:
    """Yield what `api` says of its server, of our clock and of `token`."""
    begun = time.monotonic()
    try:
        info = api.info()
    except ColdFusionError as error:
        yield _failed("server", error)
        return
    took = (time.monotonic() - begun) * 1000
    yield Finding("server", Verdict.OK, f"{api.server}, {info.version}, in {took:.0f} ms")
    yield _encryption(api.server)
    yield clock(api.connection.call("GET", "/v1").headers.get("Date"), datetime.now(UTC))
    yield _token(api, token)


def _encryption(url: str) -> Finding:
    if is_exposed(url):
        message = "not encrypted; everybody on the way can read the token"
        return Finding("tls", Verdict.NOTE, message, "Ask the operator for an https address.")
    secure = url.startswith("https:")
    return Finding("tls", Verdict.OK, "certificate is good" if secure else "this machine, no need")


def clock(date: str | None, now: datetime) -> Finding:
    """Compare this machine's clock `now` with the header `date` of an answer."""
    try:
        seconds = (now - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError):
        return Finding("clock", Verdict.OK, "the server does not tell its time")
    if abs(seconds) <= CLOCK_SECONDS:
        return Finding("clock", Verdict.OK, f"within {max(1, round(abs(seconds)))} s of the server")
    way = "ahead of" if seconds > 0 else "behind"
    return Finding(
        "clock",
        Verdict.FAILED,
        f"{abs(seconds) / 60:.0f} min {way} the server",
        "Set this machine's clock; uploads and certificates may be refused else.",
    )


def _token(api: Api, token: str | None) -> Finding:
    if token is None:
        hint = f"Log in with: coldfusion-client login {api.server}"
        return Finding("token", Verdict.NOTE, "none; only public models can be read", hint)
    try:
        me = api.whoami()
    except ColdFusionError as error:
        return _failed("token", error)
    said = f"{me.name} ({me.role})"
    if me.models is not None:
        said += f" for {', '.join(me.models)}"
    days = None if me.expires_at is None else (me.expires_at - datetime.now(UTC)).days
    if days is not None:
        said += f", expires in {days} d"
    if not may_contribute(me):
        hint = "To contribute, ask the operator for a token of the role contributor."
        return Finding("token", Verdict.NOTE, f"{said}, may not contribute", hint)
    if days is not None and days < EXPIRES_SOON_DAYS:
        return Finding("token", Verdict.NOTE, said, "Ask the operator for a new one.")
    return Finding("token", Verdict.OK, said + ("" if days is not None else ", does not expire"))


def _cache(root: Path) -> Finding:
    hint = "Name another folder with COLDFUSION_CACHE."
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".doctor.{os.getpid()}"
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(root).free
    except OSError as error:
        message = f"{root} cannot be written: {error.strerror}"
        return Finding("cache", Verdict.FAILED, message, hint)
    verdict = Verdict.OK if free >= ROOM_BYTES else Verdict.NOTE
    more = None if free >= ROOM_BYTES else "Large models need more room. " + hint
    return Finding("cache", verdict, f"{root}, {free / 1e9:.0f} GB free", more)


def _training() -> Iterator[Finding]:
    versions = {name: _version(name) for name in TRAINING}
    missing = [name for name, found in versions.items() if found is None]
    if missing:
        message = f"not installed: {', '.join(missing)}"
        hint = "Only `contribute` needs them: pip install 'coldfusion[train]'"
        yield Finding("training", Verdict.NOTE, message, hint)
        return
    said = ", ".join(f"{name} {found}" for name, found in versions.items())
    yield Finding("training", Verdict.OK, said)
    yield _attempt("device", _device)
    yield _attempt("threads", _threads)


def _attempt(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, Verdict.OK, look())
    except (ImportError, OSError, RuntimeError) as error:
        # Wheels and drivers that do not fit end in many ways; the line says which.
        hint = "Install torch again, as https://pytorch.org says for this machine."
        return Finding(check, Verdict.FAILED, f"torch cannot be used: {error}", hint)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9
        return f"{count} x {torch.cuda.get_device_name(0)}, {gigabytes:.0f} GB"
    if torch.backends.mps.is_available():
        return "Apple GPU"
    return "no GPU; finetuning uses the processor"


def _threads() -> str:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    said = f"torch uses {torch.get_num_threads()}, this process may use {cores} cores"
    chosen = os.environ.get("OMP_NUM_THREADS")
    return f"{said}; OMP_NUM_THREADS={chosen}" if chosen else said


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _failed(check: str, error: ColdFusionError) -> Finding:
    return Finding(check, Verdict.FAILED, error.message, error.hint)
