"""A nightly script: score every customer, and list the customers that could not be scored.

    python examples/batch_script.py customers.csv scores.csv

It submits a job for each row, and writes each score when it arrives. The job ids make it safe to run again: a
customer submitted twice on the same day is one job, so a second run only collects the results of the first.
For large files use `headrace batch`, or `headrace.batch.predict_file` in Python.
"""

import csv
import datetime
import sys
from pathlib import Path

from headrace import Client, JobFailed


def score(source: str, target: str) -> int:
    """Write a score for each customer; return the number of customers without one."""
    today = datetime.datetime.now(datetime.UTC).date()
    with Path(source).open(newline="") as file:
        customers = {f"churn:{today}:{row['customer']}": row for row in csv.DictReader(file)}
    instances = [{"age": int(row["age"]), "plan": row["plan"] or None} for row in customers.values()]

    failed = 0
    with Client() as client, Path(target).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["customer", "churns", "error"])
        # Priority 9, the lowest: jobs of interactive users run first.
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
        sys.exit(f"{failed} customers have no score; see the column error")
