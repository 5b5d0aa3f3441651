"""Redis: where it is, how to talk to it, and what its errors mean."""
