"""Submit single jobs for some seconds, from a container of the stack, and print their outcomes.

    docker-compose run --rm -T --entrypoint python headrace - MODEL SECONDS < load.py

Prints a line of JSON: the number of confirmed and of refused submissions, and of jobs by outcome.
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
jobs, refused, outcomes, until = [], 0, Counter(), time.monotonic() + seconds
while time.monotonic() < until:
    try:
        jobs.append(client.submit(model, instance))
    except HeadraceError:
        refused += 1
    time.sleep(0.01)
retry_until = time.monotonic() + 60
for job in jobs:
    while True:
        try:
            job.result(timeout=60)
            outcomes["success"] += 1
        except HeadraceError as error:
            if type(error).__name__ == "BrokerUnavailable" and time.monotonic() < retry_until:
                time.sleep(0.2)
                continue
            outcomes[type(error).__name__] += 1
        break
print(json.dumps({"confirmed": len(jobs), "refused": refused, "outcomes": outcomes}))
