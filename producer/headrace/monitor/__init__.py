"""The present activity of an installation, for `headrace top`, `headrace plan` and Flower: rates, workers, queues.

activity.py   counts the events of workers: rates, times, errors, heartbeats
capacity.py   decides how many pool processes a model needs, and how long a job will wait
plan.py       the workers each model has and needs, from what was measured
overview.py   listens to the events, and reads queues and dead letters
"""
