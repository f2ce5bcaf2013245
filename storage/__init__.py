"""The three places where a job rests: the record (Postgres), the queue (Celery) and the objects (S3 or disk)."""
