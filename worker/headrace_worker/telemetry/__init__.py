"""What the worker tells about itself: events to Flower, lines to the log, errors to Sentry."""
