"""The hands: Celery tasks, the build engine, leases, and the processes that train and serve."""
