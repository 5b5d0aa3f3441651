"""Bulk runs beside the ways to predict a table without a queue. See docs/bulk-benchmarks.md.

`python -m benchmarks.bulk` measures all, prints tables, writes JSON and the page.

    comparison    Parquet to Parquet: a bulk run, two in-process ways, Dask and Ray Data, in turns
    files         CSV to CSV: `headrace batch` beside the in-process ways
    scaling       one pool process and two
    online        latencies of single rows while a run goes on, beside those of an idle worker
    memory        memory of a worker and of a client, for a table and for ten times that table
    submission    a run of a thousand million rows, submitted and planned

    site          a Redis and a worker that reads and writes folders
    ways          the other ways, each a program that runs in an environment of its own
    tables        the tables, written from fixed seeds
    models        the models
    outputs       what a way wrote: its rows are counted and its predictions compared
    processes     processor time and memory of a process and its children
    sizes         how much is measured
    targets       required numbers beside measured ones
    page          tables on the terminal and in docs/bulk-benchmarks.md
"""
