"""Bulk runs on a worker: the files of a run, and its plan, chunk and finish jobs.

    locations        names of folders and buckets, references to files below them; `folder`, `object_store`: how
    sources          the files that a reference names, their formats
    chunks           pieces of a file
    read             the rows of a piece, in slices; `records`: where records of text end
    part             the part of a chunk with its receipt; `errors_part`: its failed rows; `ownership`: whose
    folder

    plan_job         list and cut the files, enqueue the chunks; `run_manifest`, `chunk_rows`: what and how large
    chunk_job        predict a piece and write its part; `split`: find the rows that end its process
    finish_job       check the parts, write `_SUCCESS`
    run_state        the run in Redis; `jobs`: the jobs of a run as they are enqueued

A file is read by the schema of the contract, never by a guess at its types.
"""
