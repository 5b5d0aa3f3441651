"""Classes of workers: workers that serve the same models and are scaled together, by the sum of the backlogs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from headrace.errors import InvalidInput
from headrace.inspection.queues import QueueDepth
from headrace.wire.names import check_model_name, is_model_name


class WorkerClass(msgspec.Struct, frozen=True):
    """The models that the workers of a class serve, as HEADRACE_SERVE names them; () is every model."""

    name: str
    models: tuple[str, ...]


def parse_class(text: str) -> WorkerClass:
    """Return the class of a text such as `forest=tumour,prices`, or `default=` for workers that serve every model.

    Raises InvalidInput.
    """
    name, equals, models = text.partition("=")
    if not equals:
        raise InvalidInput(f"{text[:80]!r} is not NAME=MODEL,MODEL; a class that serves every model is NAME=")
    if not is_model_name(name):
        raise InvalidInput(
            "the name of a class is 1 to 64 letters, digits, '-' or '_', the first a letter or digit; "
            f"got {name[:80]!r}"
        )
    return WorkerClass(name, tuple(check_model_name(model) for model in models.split(",")) if models else ())


def parse_classes(texts: Sequence[str]) -> list[WorkerClass]:
    """Return the classes of several texts. Raises InvalidInput, also for two classes of one name."""
    classes: dict[str, WorkerClass] = {}
    for worker_class in map(parse_class, texts):
        if worker_class.name in classes:
            raise InvalidInput(f"two classes are named {worker_class.name!r}; name all models of a class at once")
        classes[worker_class.name] = worker_class
    return list(classes.values())


def sum_backlogs(classes: Sequence[WorkerClass], depths: Sequence[QueueDepth]) -> Iterator[tuple[str, int]]:
    """Yield the name of each class with the sum of the backlogs of its models.

    A class without models serves every model, those of other classes too, so it sums all of them: its workers
    claim such jobs, and must not be stopped while they run them.
    """
    for worker_class in classes:
        models = set(worker_class.models)
        yield worker_class.name, sum(depth.backlog for depth in depths if not models or depth.model in models)
