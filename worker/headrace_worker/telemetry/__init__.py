"""Telemetry: what a worker reports of its jobs and of itself.

Listeners of `execution.report` get each finished claim, in the pool processes:

    events              Celery's task events, for Flower and exporters
    claim_log           log lines for what went wrong
    job_log             log lines for jobs that ended well, where a person watches
    claim_metrics       the numbers of a claim, as a delta of the metrics
    sentry              errors and failed jobs, to Sentry
    sentry_queue        the spans of Sentry's Queues page
    tracing             OpenTelemetry spans
    prediction_log      inputs and outputs of jobs, where a setting turns it on
    prediction_record   the records of the prediction log
    prediction_sinks    the files or the stream they are written to

The main process shows metrics and health:

    metrics             the metrics that pool processes count, and their deltas
    metrics_pipe        the pipe that carries deltas from pool processes to the main process
    metrics_collector   the metrics of a worker
    queue_metrics       the exporter's metrics of one Redis
    stored_models       the names of the models in a store, for the exporter
    worker_classes      classes of workers, and the sums of their backlogs
    loops               the health of loops in threads of the main process
    pool_loops          the health of a loop that runs in every pool process
    pool_memory         a record of each pool process, in shared memory
    health              liveness and readiness, and the health file
    http_server         `/metrics`, `/live` and `/ready`

    logs                the format of every log line, with secrets masked
"""
