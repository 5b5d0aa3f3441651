"""Benchmarks: Headrace beside other task queues, and the cost of a new model version. See docs/benchmarks.md.

Commands:

    __main__               `python -m benchmarks`: measure all, print tables, write JSON and docs/benchmarks.md
    pool_replacement       `python -m benchmarks.pool_replacement`: the cost of a new version, docs/swapping.md
    bulk                   `python -m benchmarks.bulk`: bulk runs beside other engines, docs/bulk-benchmarks.md
    http                   `python -m benchmarks.http`: the gateway beside other servers, docs/http-benchmarks.md
    chart                  the chart of docs/benchmarks.md, run where matplotlib is installed

Measurements:

    comparison             every peer in turn: throughput, round trips, submission, Redis CPU
    headrace_only          deep queues, one and two pool processes, prediction without a queue
    fleet                  what many workers and models cost Redis, idle and for a job
    outages                the first outcome of each worker after Redis was away
    telemetry_cost         the same worker with telemetry off, on, and with the prediction log
    load                   clients that keep a model busy while versions change

What they use:

    peers                  one module for each task queue, their base class and their registry
    peer_session           start, bound and stop the workers and the client of a peer
    peer_client            the client process of a peer, which takes the times
    environments           virtual environments of the peers
    models                 estimators, rows and model stores
    sizes                  how much is measured
    many_workers           workers without pool processes, forked from one process
    command_counts         the commands and scripts that a Redis server runs in a period
    redis_server           the Redis server that every measurement uses
    machine                processor, memory and commit, for the results

Results:

    targets                required numbers beside measured ones
    report                 tables on the terminal and in docs/benchmarks.md
    pool_replacement_page  tables in docs/swapping.md
    generated_page         the page and the results of bulk and http
    tables                 tables as plain text and Markdown
"""
