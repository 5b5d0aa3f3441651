"""Settings of a worker."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headrace.settings import Settings


class CanarySettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a producer, and the limits of canaries, which workers end and Flower shows."""

    #: A canary is ended once it has run `canary_jobs` jobs and either its failure rate exceeds production's by
    #: `canary_failures` (0 to 1), or its p99 exceeds `canary_slower` times production's.
    canary_jobs: Annotated[int, msgspec.Meta(ge=1)] = 100
    canary_failures: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    canary_slower: Annotated[float, msgspec.Meta(ge=1)] = 2.0


class WorkerSettings(CanarySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a producer, and those of a worker."""

    #: The model store: a folder, or a URL that fsspec knows (`s3://bucket/prefix`).
    models: str = "models"
    #: Folders and buckets that bulk runs may read (`r`), write (`w`) or both (`rw`), by name, separated by commas:
    #: `in=s3://lake/in:r,out=/srv/out:w`.
    locations: str = ""
    #: Folder for files read from a store URL, and its maximum size; "" is `~/.cache/headrace/models`.
    model_cache: str = ""
    model_cache_bytes: Annotated[int, msgspec.Meta(ge=0)] = 10 * 1024**3
    #: Files of the keys that verify signatures of versions, separated by commas.
    model_keys: str = ""
    #: Serve only versions that are signed by one of them.
    require_signature: bool = False
    #: Run only jobs that are signed by one of `job_keys`; otherwise jobs of plain Celery producers run too.
    require_signed_jobs: bool = False
    #: Seconds after its signing for which a signed job is accepted; at most `result_ttl`, which 0 stands for: a
    #: copy of a job is refused once the job's outcome is forgotten.
    max_signature_age: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Queues to which workers send what follows jobs in a Celery canvas: names or patterns with `*`, separated by
    #: commas; "" is none.
    callback_queues: str = "*"
    #: Models to serve, by name, separated by commas; "" is all models of the store, also those added later.
    serve: str = ""
    #: Maximum number of versions in the memory of a pool process that jobs name and no alias serves; the least
    #: recently used are dropped.
    versions_of_jobs: Annotated[int, msgspec.Meta(ge=1)] = 4
    #: Pool processes that may run bulk jobs at once; 0 is all but one, so that one is free for online jobs. A
    #: worker of bulk jobs only, or with a single process, uses all.
    bulk_processes: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    #: Run bulk jobs only. A worker without `locations` runs none.
    bulk_only: bool = False
    #: Seconds a claim's lease lasts unless it is renewed: after that a lost worker's jobs run elsewhere.
    lease: Annotated[float, msgspec.Meta(ge=1)] = 10.0
    #: Maximum number of jobs in a claim.
    claim_jobs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    #: Seconds a claim may run before its process is killed, for models without a limit of their own.
    time_limit: Annotated[float, msgspec.Meta(gt=0, le=365 * 86_400)] = 3_600.0
    #: Maximum memory of each pool process in bytes (RLIMIT_DATA); 0 is no limit.
    memory_limit: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Threads of BLAS and OpenMP in each pool process; ONNX Runtime and treelite always use one.
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    #: Seconds that running jobs may continue after SIGTERM; after that they are requeued.
    drain: Annotated[float, msgspec.Meta(ge=0, le=365 * 86_400)] = 25.0
    #: The check of Redis at start: log findings, refuse to start on a critical finding, or no check.
    redis_check: Literal["warn", "refuse", "off"] = "warn"
    #: Maximum number of dead letters of the jobs of each model, and of the malformed messages of its queue, and
    #: seconds each is stored; the oldest are dropped first.
    dead_letters_max: Annotated[int, msgspec.Meta(ge=1)] = 100_000
    dead_letters_ttl: Annotated[int, msgspec.Meta(ge=1)] = 30 * 86_400
    #: Share of the jobs that send Celery events, for Flower and other subscribers: 1 is all, 0 is none.
    events: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    #: File that is created once the worker is ready: its models are loaded and its pool is started.
    ready_file: str = ""
    #: Format of log lines; `auto` is text on a terminal, else JSON.
    log_format: Literal["auto", "json", "text"] = "auto"
    #: Log jobs as they end; `auto` is on a terminal.
    log_jobs: Literal["auto", "true", "false"] = "auto"
    #: Jobs that are logged with inputs and outputs: `full`, `metadata`, a share such as `0.01`, or by model,
    #: `churn=full,*=metadata`; "" is none.
    prediction_log: str = ""
    #: Target of the prediction log: `file:FOLDER`, `parquet:FOLDER` or `redis`; maximum bytes of the folder, and
    #: maximum records in Redis.
    prediction_log_to: str = "file:prediction-log"
    prediction_log_bytes: Annotated[int, msgspec.Meta(gt=0)] = 10 * 1024**3
    prediction_log_records: Annotated[int, msgspec.Meta(gt=0)] = 100_000
    #: File to which the worker writes its state every few seconds, for `headrace health`.
    health_file: str = ""
    #: Address and port of the HTTP server for metrics and health; port 0 is no server.
    metrics_address: str = "127.0.0.1"
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    #: Load models that are stored as joblib. Loading one runs the code it contains.
    trust_pickle: bool = False
    #: Modules whose code a version of the Python runtime may run, with their submodules, separated by commas.
    trust_modules: str = ""
    #: Maximum bytes of a model's file, packed and unpacked, checked before it is read.
    max_model_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 * 1024**3
