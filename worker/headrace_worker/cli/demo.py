"""The command `headrace demo`: train, serve and predict on this machine, in about a minute."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import click

from headrace.cli.command import command

#: Repetitions of the demonstration table, to make the file large enough for a progress bar.
_REPEATS = 40
_MODEL = "tumour"


@command(examples=["headrace demo", "headrace demo --keep ./demo"])
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Keep the files in this folder.  [a temporary folder]"
)
def demo(keep: Path | None) -> None:
    """Train models, start Redis and a worker, predict a CSV file through the queue, check the result, and stop."""
    # Imported late, so that `headrace --help` does not load scikit-learn.
    from headrace_worker.local.stack import interruptible_stack

    with interruptible_stack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        _run(folder, stack)


def _run(folder: Path, stack: contextlib.ExitStack) -> None:
    import pandas as pd

    from headrace import Client
    from headrace.batch import predict_file
    from headrace.batch.progress import ProgressMeter
    from headrace_worker.local.demo_models import add_demo_models
    from headrace_worker.local.embedded_redis import EmbeddedRedis
    from headrace_worker.local.http_example import curl_line, predict_over_http
    from headrace_worker.local.ports import free_port
    from headrace_worker.local.stack import has_gateway, start_gateway, start_worker
    from headrace_worker.store.store import Store

    started = time.monotonic()
    _print("1. Train three models and add them to a store")
    models = add_demo_models(Store(folder / "models"))
    for name, (manifest, trained) in models.items():
        _print(f"   {name}@{manifest.version}: {type(trained.estimator).__name__}, {manifest.size / 1e6:.1f} MB")

    _print("2. Start Redis and a worker with two pool processes, on loopback")
    redis = stack.enter_context(EmbeddedRedis())
    worker = start_worker(redis.url, folder / "models", folder, concurrency=2)
    stack.callback(worker.stop)

    trained = models[_MODEL][1]
    table = pd.concat([trained.unseen] * _REPEATS, ignore_index=True)
    source, target = folder / "patients.csv", folder / "predicted.csv"
    table.to_csv(source, index=False)
    _print(f"3. Predict {source.name}: {len(table):,} rows with {table.shape[1]} features, through the queue")
    with Client(redis.url) as client:
        meter = ProgressMeter(sys.stderr, size=source.stat().st_size, terminal=sys.stderr.isatty())
        report = predict_file(client, _MODEL, source, target, force=True, on_progress=meter.show)
        meter.close()
        _print(f"   {report.rows:,} rows in {report.seconds:.1f} s, {report.failed} failed")

        _print("4. Some of the predictions")
        predicted = pd.read_csv(target)
        for index in predicted.drop_duplicates("prediction").head(2).index.union([0, 1, 2]):
            row = predicted.loc[index]
            radius, texture = row["mean radius"], row["mean texture"]
            _print(f"   mean radius {radius:6.2f}, mean texture {texture:6.2f}  ->  {row['prediction']}")
        prediction = client.predict(_MODEL, table.iloc[0].to_dict(), timeout=10).prediction
        _print(f"   a single row, with client.predict: {prediction}")

    if has_gateway():
        _print("5. Start the HTTP gateway, and ask for a prediction as any language can")
        port = free_port()
        gateway = start_gateway(redis.url, folder, port=port)
        stack.callback(gateway.stop)
        address = f"http://127.0.0.1:{port}"
        _print(f"   $ {curl_line(address)}\n   {predict_over_http(address)}")

    _print(f"{6 if has_gateway() else 5}. Check against the model called directly")
    expected = trained.estimator.predict(table)
    different = int((predicted["prediction"].to_numpy() != expected).sum())
    if report.failed or different or len(predicted) != len(table):
        raise click.ClickException(f"{different} predictions differ, {report.failed} failed; see {worker.log}")
    _print(f"   all {len(table):,} equal\n\nAll good, in {time.monotonic() - started:.1f} s.{_NEXT}")


_NEXT = """ Next steps:

   make dev                            the same stack until Ctrl-C, with Flower in the browser and the HTTP API
   headrace models add MODEL.skops --name NAME --example ROWS.csv
                                       a model of your own
   docs/tutorial.md                    a tutorial, from a notebook to a queue
"""


def _print(text: str) -> None:
    click.echo(text, err=True)
