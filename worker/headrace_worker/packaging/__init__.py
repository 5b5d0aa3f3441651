"""Package a model: from a model file and an example to a version in the store.

package        all steps, from the file to the stored version
source         read the model: a file, an MLflow folder, or module:factory
own_modules    the archive of the modules that it brings along
mlflow         read an MLflow folder
example        read an example from CSV, JSON or JSON lines
expected       the original's predictions, read from a file
table          a typed table: a frame, an array, Parquet
prover         prove a model in a fresh process before this one loads it
checks         compare with the original; rows do not depend on each other
draft          the manifest with the contract and the example
infer          the contract of a fitted estimator
infer_input    its input: names, kinds, nulls and categories
infer_dtypes   the types of its columns, found by trials
infer_methods  its methods and their outputs
libraries      the libraries that its types come from
trials         compare runtimes with scikit-learn and measure them
sample_rows    generate instances for trials
"""
