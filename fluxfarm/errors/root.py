"""The root of the tree of errors."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID


class FluxfarmError(Exception):
    """The root: ``message`` is a sentence for a person, ``code`` a word for a program."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None, job: UUID | None = None
    ) -> None:
        """``param`` names the field at fault (dotted path); ``retry_after`` is in seconds.

        ``job`` is the job that stands in the way, or the one that ended badly.
        """
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.job = job
