"""What the worker tells about itself: to Sentry today."""
