"""What a worker can be told, beyond what a producer can."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headrace.settings import Settings


class WorkerSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a worker: those of a producer, and these."""

    #: The model store: a folder, or a URL that fsspec knows (`s3://bucket/prefix`).
    models: str = "models"
    #: Where what is read of a URL is kept, and how many bytes of it; "" is `~/.cache/headrace/models`.
    model_cache: str = ""
    model_cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 10 * 1024**3
    #: Files of keys whose signatures of versions count, with commas between.
    model_keys: str = ""
    #: Whether a version needs one of them to serve.
    require_signature: bool = False
    #: Whether a job needs a signature by one of `job_keys` to run; else plain Celery producers are taken too.
    require_signed_jobs: bool = False
    #: Models to serve, by name, with commas between; none is all models of the store, also those added later.
    serve: str = ""
    #: Seconds a claim's lease lasts unless it is renewed: how soon a lost worker's jobs run elsewhere.
    lease: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    #: Jobs a claim takes at the most.
    claim_jobs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    #: Seconds one claim's run may take before its process is killed, where its model has no limit of its own.
    time_limit: Annotated[float, msgspec.Meta(gt=0, le=365 * 86_400)] = 3_600.0
    #: Bytes of memory each pool process may take (RLIMIT_DATA); 0 is no limit.
    memory_limit: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Threads of BLAS and OpenMP in each pool process; ONNX Runtime and treelite take one.
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    #: Seconds a worker that is told to stop lets its jobs run on, before it puts them back.
    drain: Annotated[float, msgspec.Meta(ge=0, le=365 * 86_400)] = 25.0
    #: What is done at start when Redis cannot keep our promises: warn, refuse to start, or not look.
    redis_check: Literal["warn", "refuse", "off"] = "warn"
    #: Dead letters kept at the most, of all models, and seconds each is kept; the oldest go first.
    dead_letters_max: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    dead_letters_ttl: Annotated[int, msgspec.Meta(ge=1)] = 30 * 86_400
    #: A canary ends by itself when, of so many of its jobs or more, this part more fails than of production's,
    #: or when its p99 is so many times production's.
    canary_jobs: Annotated[int, msgspec.Meta(ge=1)] = 100
    canary_failures: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    canary_slower: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    #: The part of the jobs shown to Flower and other listeners to Celery's events: 1 is all, 0 none.
    events: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    #: A file to create when the worker is ready: its models proven, its pool up.
    ready_file: str = ""
    #: Lines of the log: JSON, or text for people; auto is text on a terminal.
    log_format: Literal["auto", "json", "text"] = "auto"
    #: Which jobs are kept with inputs and outputs: `full`, `metadata`, a share as `0.01`, or by model,
    #: `churn=full,*=metadata`; none without it.
    prediction_log: str = ""
    #: Where: `file:FOLDER`, `parquet:FOLDER` or `redis`; bytes kept in the folder, and records in Redis.
    prediction_log_to: str = "file:prediction-log"
    prediction_log_bytes: Annotated[int, msgspec.Meta(gt=0)] = 10 * 1024**3
    prediction_log_records: Annotated[int, msgspec.Meta(gt=0)] = 100_000
    #: A file in which the worker says every few seconds how it is, for `headrace health`.
    health_file: str = ""
    #: Where metrics and health are told over HTTP; port 0 is nowhere.
    metrics_address: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    #: Whether models stored as joblib are loaded. Loading one runs whatever code is in it.
    trust_pickle: bool = False
    #: Modules, with commas between, whose code a version of the Python runtime may run; with those within them.
    trust_modules: str = ""
    #: Bytes a model's file may take, and may unpack to, before it is read.
    max_model_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 * 1024**3
