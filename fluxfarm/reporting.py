"""The settings by which a process tells how it is: logs, metrics, traces, a file that it touches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from fluxfarm.policies import PerhapsPath, Policies


class Reporting(Policies):
    """A part of ``Settings``."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="FLUXFARM_LOG_LEVEL", description="How much the processes say."
    )
    log_json: bool = Field(False, alias="FLUXFARM_LOG_JSON", description="One JSON object a line, for collectors.")
    metrics_port: int = Field(
        0,
        alias="FLUXFARM_METRICS_PORT",
        ge=0,
        le=65535,
        description="Port on which workers and scheduler show their metrics; 0: none. The API has `/metrics`.",
    )
    metrics_host: str = Field("127.0.0.1", alias="FLUXFARM_METRICS_HOST", description="Address of that port.")
    metrics_token: SecretStr = Field(
        SecretStr(""), alias="FLUXFARM_METRICS_TOKEN", description="Bearer token that `/metrics` asks for. Empty: none."
    )
    alive_file: PerhapsPath = Field(
        None,
        alias="FLUXFARM_ALIVE_FILE",
        description="File that a worker or the scheduler touches while it lives, for `python -m workers.alive`.",
    )
    otlp_url: str = Field(
        "",
        alias="FLUXFARM_OTLP_URL",
        description=(
            "OpenTelemetry collector that traces go to over HTTP, as `http://collector:4318`; needs the extra "
            "`tracing`. Empty: no traces."
        ),
    )
    otlp_headers: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_OTLP_HEADERS",
        description="Headers that it asks for, as `name=value`, separated by commas, values percent-encoded.",
    )
