"""The commands that headrace-worker adds to `headrace`, by the entry points of its pyproject.toml.

demo, dev            the whole stack on this machine: for a minute, or until Ctrl-C
worker               start a Celery worker
flower               start Flower with the pages of `headrace_worker.dashboard`
exporter             metrics of queues and dead letters for Prometheus
health               the state of the worker on this machine
models               `headrace models` with add and show; the other subcommands are in models_*:
models_list          list
models_maintenance   verify, gc
models_rollout       promote, rollback, aliases, history
models_compare       compare
models_diff          diff
models_drift         drift
models_sign          keys, sign
models_publish       publish
runtime_trials       the table of runtimes that `models add` prints
store_options        the option --store, and the store and settings it leads to
"""
