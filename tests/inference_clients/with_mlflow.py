"""Print the answers of a gateway to MLflow's client of a scoring server, as JSON.

Arguments as those of with_kserve.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient


def call(url: str, table: pd.DataFrame) -> dict[str, Any]:
    """Return predictions of a frame and of its values, and the error of a wrong one."""
    address = urlsplit(url)
    client = ScoringServerClient(address.hostname, address.port)
    client.wait_server_ready(timeout=10)
    answers = {
        "frame": client.invoke(table)["predictions"],
        "params": client.invoke(table, params={"method": "predict_proba"})["predictions"],
        "array": client.invoke(table.to_numpy())["predictions"],
        "typed": client.invoke(table).get_predictions().to_numpy().ravel().tolist(),
    }
    try:
        client.invoke(table.drop(columns=["plan"]))
    except Exception as error:  # noqa: BLE001  # the type that the client raises
        answers["error"] = str(error)
    return answers


if __name__ == "__main__":
    url, rows = sys.argv[1:]
    json.dump(call(url, pd.DataFrame(json.loads(rows))), sys.stdout)
