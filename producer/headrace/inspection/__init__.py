"""Where a job is and what became of it. Reads only."""
