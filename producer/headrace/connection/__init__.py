"""Redis: where it is, how commands are sent to it, and what its errors mean.

- `url.py`: the address in the settings' URL, read and checked.
- `connect.py`: pools of connections, for threads and for asyncio.
- `call_limit.py`: the moment at which the current call must have ended.
- `bounded.py`: redis-py's connections, each step of which ends at that moment.
- `keepalive.py`: options of sockets that find a half-open connection.
- `host_lookup.py`: the addresses of a host, looked up in a thread.
- `sentinel.py`: pools that find the primary by Sentinel.
- `cluster.py`: connections to the node of a Redis Cluster that serves the key prefix.
- `slots.py`: which node that is, decided from what nodes answer; `cluster_errors.py`: its errors.
- `cluster_celery.py`: the same for kombu and Celery.
- `celery.py`: a plain Celery app on the same Redis.
- `errors.py`: errors of Redis: which are transient, and what each means to a person.
- `retry.py`: how long a client repeats a command that failed.
- `outage_log.py`: what a process logs while Redis is away.
- `commands.py`: commands, scripts and operations, run over a blocking or an asynchronous connection.
- `script_calls.py`: the forms in which a script is called: as a function, by its digest, with its source.
- `functions.py`: the functions that an administrator loads.
- `pipelined.py`: a command that is sent before its reply is read.
- `grouped.py`: script calls of several callers that become one call.
- `future_deadlines.py`: deadlines of many asyncio futures with one timer.
- `server_info.py`: version, configuration, replicas, latency and clock of a server.
- `server_time.py`: the clock of the server.
"""
