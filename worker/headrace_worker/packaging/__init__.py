"""From a model file and an example to a package that can be stored as a version."""
