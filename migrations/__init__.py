"""Alembic migrations; the first makes the farm's tables, each later one can be taken back."""
