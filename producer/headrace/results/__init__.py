"""From a published outcome to the caller that waits for it."""
