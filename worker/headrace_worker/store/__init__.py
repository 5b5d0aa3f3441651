"""The model store: immutable, numbered and signed versions of models, in a folder or at a URL.

store           add, read, verify, sign and remove versions
backend         the protocol of a backend: files by model, version and name
folder          the backend for a folder
remote          the backend for a URL
object_storage  files below a URL, through fsspec
cache           copies of a remote store's files on this machine
signing         keys, and signatures of manifests
artifact        an estimator to bytes (skops, joblib) and back
trusted_types   the types a skops file may hold
native_arrays   check the arrays that native code indexes without a check
chunks          read, hash and write large bytes in chunks
garbage         find and remove old versions that are not in use
references      find the versions that aliases, jobs and dead letters refer to
"""
