"""From a notebook to the queue: train, package, submit, compare. Open it as a notebook, or run it as a script.

    python examples/notebook_to_queue.py

It needs a worker that serves the store in HEADRACE_MODELS: `headrace dev --store ./models` in another terminal.
"""

# %%
import json
import os
import tempfile
import time
from pathlib import Path

from palmerpenguins import load_penguins
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skops import io as skops

from headrace import Client
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

# %% Train, as in any notebook: mixed columns, some values missing, classes that are words.
numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
words = ["island", "sex"]

train, test = train_test_split(load_penguins(), random_state=0)
encode = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False))
columns = make_column_transformer((encode, words), (SimpleImputer(), numbers))
model = make_pipeline(columns, HistGradientBoostingClassifier(random_state=0))
model.fit(train[words + numbers], train["species"])
print(f"accuracy: {model.score(test[words + numbers], test['species']):.2f}")

# %% Package: the model, and rows like those it will meet. What it takes and gives is inferred from both.
folder = Path(tempfile.mkdtemp())
skops.dump(model, folder / "penguins.skops")
train[words + numbers].to_csv(folder / "example.csv", index=False)

store = Store(os.environ.get("HEADRACE_MODELS", "models"))
version = package(store, folder / "penguins.skops", name="penguins", example=folder / "example.csv")
for feature in version.contract.input.features:
    print(feature.name, feature.kind, "may be missing" if feature.nullable else "")

# %% Submit: a worker sees the new version within seconds, and tells producers when it has proven it.
client = Client()
while "penguins" not in client.models() or client.contract("penguins").version != version.version:
    time.sleep(0.5)

rows = json.loads(test[words + numbers].to_json(orient="records"))
answer = client.predict("penguins", instances=rows, timeout=30)

# %% Compare: what came through the queue is what the model itself says.
same = answer.predictions == list(model.predict(test[words + numbers]))
print(f"{len(rows)} predictions by {answer.model}@{answer.version}, equal to the model's own: {same}")
client.close()
