"""The run of a claim in a pool process: from its messages to one outcome for each job.

runner ─> opening ─> batching ─> predict ─> forged ─> settle ─> records ─> publish ─> report

runner          run a claim: call the steps in order, then the listeners
claimed_job     the records of a job: as claimed, as admitted, and its result
opening         parse the messages of a claim, and sort them
exhausted       give up, in the main process, what no pool process can
forged          find messages that bear the id of another job
batching        admit jobs, and group them into batches
predict         run the batches; if a batch fails, find the failing job
settle          decide what becomes of each job: an outcome, a dead letter, another run
retry           decide whether and when a job runs again, from its attempts
records         how each job came to its outcome, as it is stored
publish         publish the decisions and end the lease, in one step
follow_ups      plan what follows the outcomes in a Celery canvas
canvas_app      the Celery app that plans with Celery's own code
follow_up_sender  carry out the plans
report          the report of a claim, and its listeners
pool_process    memory, threads and signals of a pool process
scheduling      give a pool process that runs a claim precedence over the event loop
"""
