"""The Celery tasks: options, and one call into app/pipeline each."""
