"""Predicts again and again for some seconds, from a container of the stack, and says how long it took.

    docker-compose run --rm -T --entrypoint python headrace - MODEL SECONDS INSTANCE < latency.py

Prints the milliseconds of each, as a list in JSON. Each counts from the moment it was due, so that one that is
late makes those behind it late too, as it would for users.
"""

import json
import sys
import time

from headrace import Client, Settings
from headrace.settings import load_settings

#: Seconds from one to the next.
EVERY = 0.05

model, seconds, instance = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
client = Client(settings=load_settings(Settings))
client.predict(model, instance, timeout=60)  # the first also connects
took, due = [], time.perf_counter()
until = due + seconds
while due < until:
    time.sleep(max(0, due - time.perf_counter()))
    client.predict(model, instance, timeout=60)
    took.append(1000 * (time.perf_counter() - due))
    due += EVERY
print(json.dumps(took))
