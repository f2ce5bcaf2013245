"""The work: a Celery worker claims jobs, renders them, stores what came out and finishes the record.

``celery -A workers worker …`` finds the application in ``workers.celery``; ``python -m workers local`` starts it with
the options that suit a process which holds a model.
"""
