"""Celery workers that run prediction jobs."""
