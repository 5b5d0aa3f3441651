"""From the arguments of a submit to accepted jobs.

In the order of their use:

- `options.py`: the arguments of a submit, checked.
- `routing.py`: the version each job runs on, and the check against its contract.
- `tracing.py`: a span for the submit, and headers that carry the trace.
- `enqueue.py`: the script that accepts jobs, and the encoding of its arguments.
- `pipeline.py`: calls of that script, one in flight while the next is encoded.
- `durability.py`: the confirmation that accepted jobs survive a restart and a failover.
- `submitter.py`: `submit` and `submit_many`, the operations made of these.
"""
