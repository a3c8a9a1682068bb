"""Alembic migrations, run by `service.db.upgrade`."""
