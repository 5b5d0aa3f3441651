"""Checks of Redis, of the access to it, of Flower and of the running service. Each returns findings with a fix.

`headrace doctor` prints the findings; a worker logs those about its Redis when it starts.

    finding.py   `Finding` and its severities
    redis.py     the configuration and state of a Redis server
    access.py    who can read the traffic to Redis, and who can log in
    functions.py whether the functions are loaded that users call in place of EVAL
    flower.py    whether Flower answers, and whether it asks for a password
    service.py   whether every queue has a worker and every alias a loaded version
    runs.py      whether every bulk run makes progress
"""
