"""A Django project in one file: a view that scores a customer after the transaction that stores it.

    pip install ./producer django
    python examples/django_service.py runserver

    curl localhost:8000/customers/4711/score -d age=41 -d plan=gold     # 202
    curl localhost:8000/customers/4711/score                            # the score

`transaction.on_commit` submits the job when the database has the customer, and never for one that is rolled back.
The id of the job is that of the customer, so a view that runs twice scores once.
"""

import os
import sys
from functools import cache

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from headrace import AnyClient, Client, HeadraceError, InvalidInput, JobFailed

if not settings.configured:
    settings.configure(
        SECRET_KEY=os.environ.get("SECRET_KEY", "for-development-only"),
        ALLOWED_HOSTS=["localhost", "127.0.0.1", "testserver"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    django.setup()


@cache
def headrace_client() -> AnyClient:
    """Return the client of this process: safe for threads, and after the fork of a server such as gunicorn."""
    return Client()  # HEADRACE_REDIS_URL


def score(request: HttpRequest, customer: int) -> JsonResponse:
    """Enqueue a score (POST), or return it (GET)."""
    job_id = f"customer-{customer}"
    if request.method != "POST":
        return read(job_id)
    age, plan = request.POST["age"], request.POST["plan"]
    try:
        with transaction.atomic():
            # Store the customer here.
            instance = {"age": int(age), "plan": plan}
            transaction.on_commit(lambda: headrace_client().submit("churn", instance, id=job_id))
    except InvalidInput as error:
        return JsonResponse({"error": str(error)}, status=422)
    except HeadraceError:  # the customer is stored; a later run submits under the same id
        return JsonResponse({"error": "scores are not available at the moment"}, status=503)
    return JsonResponse({"id": job_id}, status=202)


def read(job_id: str) -> JsonResponse:
    """Return the status of a job, and its prediction once it is finished."""
    job = headrace_client().job(job_id)
    answer: dict[str, object] = {"id": job_id, "status": job.status()}
    if answer["status"] in {"unknown", "waiting", "running"}:
        return JsonResponse(answer, status=404 if answer["status"] == "unknown" else 200)
    try:
        answer["prediction"] = job.result(timeout=5).prediction
    except JobFailed as error:
        answer["error"] = str(error)
    return JsonResponse(answer)


urlpatterns = [path("customers/<int:customer>/score", score)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
