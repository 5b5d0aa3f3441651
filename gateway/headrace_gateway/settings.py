"""Settings of a gateway."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from headrace.errors import SettingError
from headrace.settings import Seconds, Settings

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")


class GatewaySettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a producer, and those of a gateway."""

    #: Address and port of the API.
    gateway_address: str = "127.0.0.1"
    gateway_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    #: Processes that share the port; each has connections of its own to Redis.
    gateway_processes: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    #: Address and port of health and metrics, never for the public; 0 is no server.
    gateway_metrics_address: str = "127.0.0.1"
    gateway_metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    #: Serve without API keys: everybody is one caller, who may use all models and see all jobs.
    gateway_open: bool = False
    #: Serve without API keys on an address that other machines reach, too; else the gateway does not start.
    gateway_open_network: bool = False
    #: Seconds that a request waits for an outcome where it does not say how long (`Prefer: wait=N`), and the most.
    gateway_wait: Seconds = 30.0
    gateway_wait_max: Seconds = 120.0
    #: Seconds in which a body must arrive, and between two pieces of a streamed one.
    gateway_body_timeout: Seconds = 10.0
    gateway_stream_timeout: Seconds = 30.0
    #: Most bytes of a file that is sent to `:batch`.
    gateway_batch_bytes: Annotated[int, msgspec.Meta(gt=0)] = 1024**3
    #: Begin the answer to a file while it still arrives. Only where no server written in Go stands in front: it
    #: would drop a part of the file, unless it was told not to (`enable_full_duplex` in Caddy).
    gateway_batch_duplex: bool = False
    #: Names of the endpoints that jobs may have notified, separated by commas; their URLs are the notifier's.
    gateway_notify: str = ""
    #: Origins whose pages may call the API from a browser, separated by commas; "" is none.
    gateway_origins: str = ""
    #: The model of `/invocations` and `/ping` without a model in the path; "" is the only one that is published.
    gateway_model: str = ""
    #: Seconds that requests may continue after SIGTERM. Waits end at once, with the id of their job.
    gateway_drain: Seconds = 10.0
    #: Seconds after SIGTERM in which new requests are still refused with an answer: a load balancer may send some
    #: until it looks at /ready again. An idle gateway does not wait for them.
    gateway_linger: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    #: Write a line to the log for each request.
    gateway_log_requests: bool = True

    @property
    def endpoints(self) -> frozenset[str]:
        """The names of the endpoints that jobs may have notified."""
        return frozenset(name.strip() for name in self.gateway_notify.split(",") if name.strip())

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may call the API. Raises SettingError."""
        origins = [origin.strip().rstrip("/") for origin in self.gateway_origins.split(",") if origin.strip()]
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise SettingError(
                    "HEADRACE_GATEWAY_ORIGINS cannot be used: each origin is a scheme and a host, such as "
                    "https://shop.example.com, with a port where it needs one; `*` is refused"
                )
        return origins
