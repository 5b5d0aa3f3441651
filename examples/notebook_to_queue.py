"""From a notebook to the queue: train, package, submit, compare. Open it as a notebook or run it as a script.

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

from headrace import Client, UnknownModel
from headrace_worker.packaging.package import package
from headrace_worker.store.store import Store

# %% Train a model on mixed columns with missing values; the classes are texts.
numbers = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
categories = ["island", "sex"]

train, test = train_test_split(load_penguins(), random_state=0)
encode = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False))
columns = make_column_transformer((encode, categories), (SimpleImputer(), numbers))
model = make_pipeline(columns, HistGradientBoostingClassifier(random_state=0))
model.fit(train[categories + numbers], train["species"])
print(f"accuracy: {model.score(test[categories + numbers], test['species']):.2f}")

# %% Package the model with example rows. The contract of inputs and outputs is inferred from both.
folder = Path(tempfile.mkdtemp())
skops.dump(model, folder / "penguins.skops")
train[categories + numbers].to_csv(folder / "example.csv", index=False)

store = Store(os.environ.get("HEADRACE_MODELS", "models"))
version = package(store, folder / "penguins.skops", name="penguins", example=folder / "example.csv")
for feature in version.contract.input.features:
    print(feature.name, feature.kind, "may be missing" if feature.nullable else "")

# %% Submit. A worker loads the new version within seconds, and publishes its contract after testing it.
client = Client()
while True:
    try:
        client.contract("penguins", version.version)
        break
    except UnknownModel:
        time.sleep(0.5)

rows = json.loads(test[categories + numbers].to_json(orient="records"))
prediction = client.predict("penguins", instances=rows, version=version.version, timeout=30)

# %% Compare the predictions from the queue with the model's own.
equal = prediction.predictions == list(model.predict(test[categories + numbers]))
print(f"{len(rows)} predictions by {prediction.model}@{prediction.version}, equal to the model's own: {equal}")
client.close()
