"""The HTTP gateway: one resource, the job; every route is a way to write one, or to wait for it.

    app            the routes together, and what they share; routing: a route
    predict        `:predict`: a job, and the wait for it
    job_routes     jobs with an id: submit, read, long polls, cancel, timeline
    model_routes   the models, and what each takes and gives
    batch          `:batch`, files in and out; batch_body, batch_run, spool, answer_pipe: the way of one
    events         the events of jobs (SSE); event_streams, job_states
    bulk           bulk runs by reference
    jobs           the jobs of all faces: submit, wait, read
    model_state    what Redis holds about a model
    bodies         bodies within limits of size and time; unpacking: gzip and deflate
    prefer, keyed  headers of a request
    problems       every error as problem+json; error_answers: the answers to what a route raises
    frame          around each request: log, metrics, headers of answers; request_log, metrics
    callers        who calls, and what they may
    state          the client and the end of one process; outcome_rate
    settings       HEADRACE_GATEWAY_*
    server         uvicorn and its end; processes: several of them; health: /live, /ready and /metrics
    serve, cli     all of it, and `headrace gateway`

A replica holds no state: what it answered with 200, 201 or 202 is in Redis. So any load balancer will do.
"""
