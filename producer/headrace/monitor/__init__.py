"""The present activity of an installation, for `headrace top` and Flower: rates, workers and queue depths.

activity.py   counts the events of workers: rates, times, errors, heartbeats
overview.py   listens to the events, and reads queues and dead letters
"""
