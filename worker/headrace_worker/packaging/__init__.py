"""Package a model: from a model file and an example to a version in the store.

package        all steps, from the file to the stored version
source         read the model: a file, an MLflow folder, or module:factory
mlflow         read an MLflow folder
example        read an example from CSV, JSON or JSON lines
draft          the manifest with the contract and the example
infer          the contract of a fitted estimator
infer_input    its input: names, kinds, nulls and categories
infer_methods  its methods and their outputs
trials         compare runtimes with scikit-learn and measure them
sample_rows    generate instances for trials
"""
