"""Settings: from the environment, a file and flags, in that rising order."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from coldfusion_shared.errors import ConfigurationError

FILE_NAME = "settings.toml"
MIB = 2**20
EVERYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
# What a provider may make of somebody: admins are made where the server runs, as everywhere.
ProvidedRole = Literal["reader", "contributor", "evaluator", "maintainer"]


def _from_json(value: Any) -> Any:
    """Read a table where it was written as JSON: a variable of the environment has no other way."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('it is no JSON object such as {"staff": "contributor"}') from None


def _networks(value: Any) -> Any:
    """Read networks with commas between; true: all there are, false: none."""
    words = value if isinstance(value, list | tuple) else str(value).split(",")
    found = [str(word).strip().lower() for word in words]
    if found in (["true"], ["false"]):
        return EVERYWHERE if found == ["true"] else ()
    try:
        return tuple(ip_network(word) for word in found)
    except ValueError:
        raise ValueError(
            "it is neither true nor false, nor networks such as 10.0.0.0/8,192.168.1.5"
        ) from None


class Settings(BaseSettings):
    """All that an operator can set; each field is also ``COLDFUSION_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix="COLDFUSION_",
        # Compose files pass on what nobody has set as empty.
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    data_dir: Path = Field(
        default=Path("coldfusion-data"),
        description="folder of the embedded database, the objects and the keys",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="port to listen on; 0: any free one"
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL; not set: SQLite in the data folder"
    )
    database_pool: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="connections to the database that a process keeps open"
    )
    database_overflow: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=20, description="connections beyond those, closed again when they are free"
    )
    public_url: str | None = Field(
        default=None, description="URL under which clients reach the server, behind a proxy"
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="addresses and networks, with commas between, whose X-Forwarded headers are "
        "believed; *: all, and what clients write there, unless the proxy replaces it",
    )
    secret: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        default=None,
        description="key that signs upload URLs and browser sessions, the same for all processes; "
        "not set: made once and kept in the data folder",
    )
    signing_key_file: Path | None = Field(
        default=None,
        description="private key that bases are signed with, PEM, P-256; not set: signing-key.pem "
        "in the data folder, made once",
    )
    signing_secret: Annotated[SecretStr, Field(min_length=32)] | None = Field(
        default=None,
        description="random text that the key is derived from instead, the same for all processes; "
        "for where they share no file",
    )
    s3_bucket: str | None = Field(
        default=None, description="bucket of the objects; not set: the data folder keeps them"
    )
    s3_prefix: Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]+/)*$")] = Field(
        default="", description="put before all keys in the bucket, with a slash at its end"
    )
    s3_endpoint: str | None = Field(
        default=None, description="URL of the S3 service; not set: Amazon's"
    )
    s3_public_endpoint: str | None = Field(
        default=None, description="URL under which clients reach it, where that is another one"
    )
    s3_region: str = Field(default="us-east-1", description="region of the bucket")
    s3_access_key: SecretStr | None = Field(
        default=None, description="access key; not set: as boto3 finds one (environment, role)"
    )
    s3_secret_key: SecretStr | None = Field(default=None, description="the access key's secret")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="auto, path or virtual: where a URL names the bucket"
    )
    s3_ca_file: Path | None = Field(
        default=None, description="certificates to trust, PEM; not set: the system's"
    )
    s3_checksums: Literal["when_required", "when_supported"] = Field(
        default="when_required", description="when botocore adds checksums of its own"
    )
    s3_encryption: Literal["AES256", "aws:kms"] | None = Field(
        default=None, description="encryption by the service; not set: as the bucket has it"
    )
    s3_kms_key: str | None = Field(
        default=None, description="key for aws:kms; not set: the bucket's own"
    )
    part_bytes: Annotated[int, Field(ge=64 * 1024, le=1024 * MIB)] = Field(
        default=16 * MIB, description="size of an upload's parts"
    )
    upload_hours: Annotated[float, Field(gt=0, le=24 * 30)] = Field(
        default=24.0, description="hours after which an unfinished upload is given up"
    )
    url_minutes: Annotated[float, Field(gt=0, le=24 * 60)] = Field(
        default=60.0,
        description="minutes for which a URL to upload or download is good; clients renew them",
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=MIB, description="largest request body, upload parts apart"
    )
    address_requests: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="requests, and connections where no trusted proxy is between, that one address "
        "may have at a time, event streams among them; of IPv6 a network /64 is one address",
    )
    min_free_bytes: Annotated[int, Field(ge=0)] = Field(
        default=256 * MIB, description="free disk space under which no upload is taken"
    )
    quota_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="bytes that one contributor may have stored or on the way; not set: any",
    )
    quota_uploads: Annotated[int, Field(ge=1)] | None = Field(
        default=20, description="unfinished uploads that one contributor may have at a time"
    )
    quota_round: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="contributions that one contributor may send to one round; not set: any",
    )
    quota_day: Annotated[int, Field(ge=1)] | None = Field(
        default=1000,
        description="contributions that one contributor may declare in 24 hours, over all models, "
        "whatever becomes of them",
    )
    quota_day_bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="bytes that one contributor may declare in 24 hours; not set: any"
    )
    rate_per_address: Annotated[int, Field(ge=0)] = Field(
        default=3000,
        description="requests a minute from one address, of which all may come at once, the parts "
        "of uploads apart; 0: any",
    )
    rate_per_token: Annotated[int, Field(ge=0)] = Field(
        default=1200, description="requests a minute with one token, likewise; 0: any"
    )
    wrong_tokens: Annotated[int, Field(ge=0)] = Field(
        default=10,
        description="wrong tokens and codes of invitations from one address, or for one token, "
        "before each further one has to wait; 0: any",
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="URL of the OpenID Connect provider that people may sign in by, as it writes "
        "it itself; not set: by tokens alone",
    )
    oidc_client_id: str | None = Field(
        default=None, description="id of the dashboard at the provider, which gives it out"
    )
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="the secret that goes with it; not set: a public client has none"
    )
    oidc_device_client_id: str | None = Field(
        default=None,
        description="id at the provider of coldfusion-client, a public client that may use the "
        "device grant; not set: login --device is not offered",
    )
    oidc_name: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        default="single sign-on", description="what the dashboard's button calls the provider"
    )
    oidc_scopes: str = Field(
        default="openid profile email",
        description="scopes to ask for, with spaces between, openid among them",
    )
    oidc_name_claim: str = Field(
        default="preferred_username",
        description="claim that a newcomer is named after; of an e-mail address, what is before @",
    )
    oidc_role_claim: str = Field(
        default="groups",
        description="claim that decides the role, with dots where it lies inside another one",
    )
    oidc_roles: Annotated[dict[str, ProvidedRole], NoDecode, BeforeValidator(_from_json)] = Field(
        default={},
        description="role by what that claim holds, as JSON or a table: of several that fit the "
        "first; reader, contributor, evaluator or maintainer",
    )
    oidc_default_role: Literal["none", "reader", "contributor"] = Field(
        default="none",
        description="role of whom none of those fits: none (no sign-in), reader or contributor",
    )
    oidc_domains: str = Field(
        default="",
        description="domains, with commas between, of the e-mail addresses that may sign in, as "
        "far as the provider has verified them; empty: any, or none",
    )
    oidc_session_hours: Annotated[float, Field(gt=0, le=24 * 7)] = Field(
        default=12.0, description="hours after which a browser has to sign in again"
    )
    oidc_token_hours: Annotated[float, Field(gt=0, le=24 * 366)] = Field(
        default=24.0 * 7, description="hours for which the token of login --device is good"
    )
    gc_hours: Annotated[float, Field(ge=0)] = Field(
        default=24.0, description="hours between two garbage collections; 0: only by hand"
    )
    gc_grace_hours: Annotated[float, Field(ge=1)] = Field(
        default=24.0,
        description="hours for which an object that nothing needs is kept; more than a fuse or a "
        "new model takes to store what it makes",
    )
    event_days: Annotated[float, Field(ge=1, le=36_500)] = Field(
        default=400.0,
        description="days for which events are kept; what an active webhook has not been sent yet "
        "stays longer",
    )
    webhook_private: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)
    ] = Field(
        default=(),
        description="private and loopback networks that webhooks may go to, and there without TLS, "
        "with commas between, such as 10.0.0.0/8; true: all; not set: none",
    )
    scheduler_seconds: Annotated[float, Field(gt=0)] = Field(
        default=0.5, description="pause between two looks at the open rounds"
    )
    worker_seconds: Annotated[float, Field(gt=0)] = Field(
        default=0.5, description="pause between two looks for work"
    )
    lease_seconds: Annotated[float, Field(ge=1)] = Field(
        default=30.0, description="time after which the work of a silent worker is taken over"
    )
    run_dir: Path | None = Field(
        default=None,
        description="folder of this process's own for the sign of life of its scheduler, worker "
        "or evaluator; not set: none is given",
    )
    heartbeat_seconds: Annotated[float, Field(ge=5)] = Field(
        default=180.0,
        description="silence after which a scheduler, worker or evaluator counts as hanging",
    )
    fuse_threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="threads of a fuse; not set: one for each core"
    )
    metrics_public: bool = Field(
        default=False,
        description="whether everybody may read /metrics, what concerns private models and the "
        "work of all apart; not set: maintainers of all models, and admins",
    )
    fault_point: str | None = Field(
        default=None,
        description="for the project's own tests, which say so by COLDFUSION_UNDER_TEST=1: where "
        "the process kills itself",
    )
    log_level: str = Field(default="info", description="debug, info, warning or error")
    log_json: bool = Field(default=False, description="write logs as JSON lines")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the file, the file over the environment."""
        folder = init_settings().get("data_dir") or env_settings().get("data_dir")
        file = Path(folder or cls.model_fields["data_dir"].default) / FILE_NAME
        return (init_settings, TomlConfigSettingsSource(settings_cls, file), env_settings)

    @model_validator(mode="after")
    def _check_under_test(self) -> Settings:
        if self.fault_point is not None and os.environ.get("COLDFUSION_UNDER_TEST") != "1":
            raise ValueError("fault_point is for tests alone; take it out")
        return self

    @property
    def needs_folder(self) -> bool:
        """Whether anything is kept in the data folder."""
        return None in (self.database_url, self.secret, self.s3_bucket)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in use."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.absolute() / 'coldfusion.db'}"


def load_settings(**flags: Any) -> Settings:
    """
    Return the settings in force.

    Args:
        flags: what was given on the command line; null means not given.

    Raises:
        ConfigurationError: a value cannot be used; the message names where it comes from.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"The setting {name!r} cannot be used: {first['msg']}.",
            hint=f"It comes from a flag, {FILE_NAME} in the data folder, or "
            f"COLDFUSION_{name.upper()}.",
        ) from None
    except ValueError as error:
        raise ConfigurationError(f"{FILE_NAME} cannot be read: {error}.") from None
