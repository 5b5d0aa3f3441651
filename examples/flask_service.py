"""A blocking web service that answers with the prediction, or with the place of a slow one.

    pip install ./producer flask
    flask --app examples/flask_service.py run

    curl localhost:5000/predictions/order-4711 -X PUT -H 'content-type: application/json' \\
         -d '{"model": "churn", "instance": {"age": 41, "plan": "gold"}}'

The caller chooses the id, so a request that is repeated is the same job.
"""

from typing import Any

from flask import Flask, Response, jsonify, request, url_for

from headrace import (
    AnyClient,
    BrokerUnavailable,
    Client,
    InvalidInput,
    JobConflict,
    JobFailed,
    QueueFull,
    ResultTimeout,
)

#: Seconds that a request waits for its prediction.
WAIT_SECONDS = 5.0


def create_app(client: AnyClient | None = None) -> Flask:
    """Return the service. One client serves all threads; a test passes an in-memory one."""
    app = Flask(__name__)
    headrace = client or Client()  # HEADRACE_REDIS_URL

    @app.put("/predictions/<job_id>")
    def predict(job_id: str) -> Any:
        body = request.get_json()
        headrace.submit(body["model"], body["instance"], id=job_id)
        return read(job_id)

    @app.get("/predictions/<job_id>")
    def read(job_id: str) -> Any:
        job = headrace.job(job_id)
        if job.status() == "unknown":
            return jsonify(error="unknown or expired prediction"), 404
        try:
            result = job.result(timeout=WAIT_SECONDS)
        except ResultTimeout:  # the job goes on
            return jsonify(id=job_id), 202, {"Location": url_for("read", job_id=job_id), "Retry-After": "1"}
        except JobFailed as error:
            return jsonify(id=job_id, error=str(error), reason=error.reason), 502
        return jsonify(id=job_id, version=result.version, prediction=result.prediction)

    @app.errorhandler(InvalidInput)
    def refuse(error: InvalidInput) -> tuple[Response, int]:
        return jsonify(error=str(error)), 409 if isinstance(error, JobConflict) else 422

    @app.errorhandler(QueueFull)
    @app.errorhandler(BrokerUnavailable)
    def unavailable(_: Exception) -> tuple[Response, int, dict[str, str]]:
        return jsonify(error="predictions are not available at the moment"), 503, {"Retry-After": "5"}

    return app
