"""A nightly script: score every customer, and say which ones could not be scored.

    python examples/batch_script.py customers.csv scores.csv

It puts a job for each row on the queue and writes scores as they come. The ids make it safe to run again: a
customer submitted twice on the same day is one job, so a second run only collects what the first one enqueued.
For files of any length there is `headrace batch`, and `headrace.batch.predict_file` in Python.
"""

import csv
import datetime
import sys
from pathlib import Path

from headrace import Client, JobFailed


def score(source: str, target: str) -> int:
    """Write a score for each customer; returns how many have none."""
    today = datetime.datetime.now(datetime.UTC).date()
    with Path(source).open(newline="") as file:
        customers = {f"churn:{today}:{row['customer']}": row for row in csv.DictReader(file)}
    instances = [{"age": int(row["age"]), "plan": row["plan"] or None} for row in customers.values()]

    failed = 0
    with Client() as client, Path(target).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["customer", "churns", "error"])
        # Priority 9: somebody who waits for an answer goes first.
        jobs = client.submit_many("churn", instances, ids=list(customers), priority=9)
        for job in client.as_completed(jobs, timeout=600):
            customer = customers[job.id]["customer"]
            try:
                out.writerow([customer, job.result().prediction, ""])
            except JobFailed as error:
                out.writerow([customer, "", error])
                failed += 1
    return failed


if __name__ == "__main__":
    if failed := score(*sys.argv[1:3]):
        sys.exit(f"{failed} customers have no score; the file says why")
