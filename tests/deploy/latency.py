"""Predict at a fixed rate for some seconds, from a container of the stack, and print the latencies.

    docker-compose run --rm -T --entrypoint python headrace - MODEL SECONDS INSTANCE < latency.py

Prints a JSON list of milliseconds. Each prediction is timed from the moment it was due, so that a delay also
counts for the predictions behind it, as it would for users.
"""

import json
import sys
import time

from headrace import Client, Settings
from headrace.settings import load_settings

#: Seconds between two predictions.
INTERVAL = 0.05

model, seconds, instance = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
client = Client(settings=load_settings(Settings))
client.predict(model, instance, timeout=60)  # the first also connects
latencies, due = [], time.perf_counter()
until = due + seconds
while due < until:
    time.sleep(max(0, due - time.perf_counter()))
    client.predict(model, instance, timeout=60)
    latencies.append(1000 * (time.perf_counter() - due))
    due += INTERVAL
print(json.dumps(latencies))
