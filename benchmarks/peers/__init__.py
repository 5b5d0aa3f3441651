"""The task queues that are compared: one module each, with its task, its worker commands and its client.

base      the interface of a peer, and the task that all of them run
registry  names, titles and environments of the peers
"""
