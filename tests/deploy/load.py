"""Submits jobs one by one for some seconds, from a container of the stack, and says what became of them.

    docker-compose run --rm -T --entrypoint python headrace - MODEL SECONDS < load.py

Prints one line of JSON: how many submits returned, and how many of those jobs ended in each way.
"""

import json
import sys
import time
from collections import Counter

from headrace import Client, HeadraceError, Settings
from headrace.settings import load_settings

model, seconds = sys.argv[1], float(sys.argv[2])
instance = json.loads(sys.argv[3])
client = Client(settings=load_settings(Settings))
jobs, refused, ended, until = [], 0, Counter(), time.monotonic() + seconds
while time.monotonic() < until:
    try:
        jobs.append(client.submit(model, instance))
    except HeadraceError:
        refused += 1
    time.sleep(0.01)
waits = time.monotonic()
for job in jobs:
    while True:
        try:
            job.result(timeout=60)
            ended["success"] += 1
        except HeadraceError as error:
            if type(error).__name__ == "BrokerUnavailable" and time.monotonic() < waits + 60:
                time.sleep(0.2)
                continue
            ended[type(error).__name__] += 1
        break
print(json.dumps({"confirmed": len(jobs), "refused": refused, "ended": ended}))
