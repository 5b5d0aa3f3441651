"""What lies in Redis, shared by client and worker: names, bytes and types. No I/O."""
