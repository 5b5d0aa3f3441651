"""The HTTP gateway beside FastAPI with the model in its process, and MLServer. See docs/http-benchmarks.md.

`python -m benchmarks.http` measures all, prints tables, writes JSON and the page.

    comparison    requests a second, processor time and latencies of every server, in turns
    client        processor time of `AsyncClient.predict`, and the idle round trip of a client without HTTP
    slow_clients  latencies beside idle event streams, and beside clients that send a byte a second
    files         a CSV file by `:batch` beside `headrace batch`

    servers       the other servers, each a program
    running       servers as they are started, asked and stopped
    load          the load generator: a process of its own, whose processor time is not counted
    held          connections that stay open beside the load: event streams and slow requests
    concurrent    the program that predicts with `AsyncClient` in many tasks
    models        the models and rows
    sizes         how much is measured
    targets       required numbers beside measured ones
    page          tables on the terminal and in docs/http-benchmarks.md
"""
