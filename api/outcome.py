"""How a call of a synchronous dialect gets its pictures: asleep on the loop until the job is over.

A caller that hangs up stops nothing: the clients of these dialects hang up when they have waited too long, and then
ask again, which leads them to the same job. Whoever wants the job stopped cancels it at ``/v1/jobs/{uuid}/cancel``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from fastapi import Request
from starlette.requests import ClientDisconnect

from api.farm import Farm
from api.waiting import until_over
from fluxfarm.errors import Gone, StillRendering
from fluxfarm.problems import end_of
from storage.records import Job


async def pictures_of(farm: Farm, request: Request, job: Job) -> Job:
    """The job when it is a SUCCESS; its body must have been read before. Every error names the job.

    Raises:
        StillRendering: it was not over after ``settings.longest_wait`` seconds.
        RenderError: the leaf of the error that it ended with.
        NotFound: it was erased meanwhile.
        Gone: its pictures were, as their time was over.
        ClientDisconnect: nobody waits any more.
    """
    if not job.status.is_final:
        waiting = until_over(farm.polls, farm.changes, job.tenant_id, job.uuid, farm.settings.longest_wait)
        return _ended(await _unless_hung_up(request, waiting))
    return await over(farm, job)


async def over(farm: Farm, job: Job) -> Job:
    """The job as it is now, if it is a SUCCESS; raises what ``pictures_of`` does otherwise."""
    return _ended(await farm.polls.read(job.tenant_id, job.uuid))


def _ended(job: Job) -> Job:
    error = end_of(job.uuid, job.status, job.problem)
    if error is not None:
        raise error
    if not job.status.is_final:
        message = f"The job is not over yet, and goes on; read it at /v1/jobs/{job.uuid} instead of asking again."
        raise StillRendering(message, job=job.uuid)
    return check_kept(job)


def check_kept(job: Job) -> Job:
    """The job, if its pictures were not erased.

    Raises:
        Gone: their time was over.
    """
    if (gone := gone_of(job)) is not None:
        raise gone
    return job


def gone_of(job: Job) -> Gone | None:
    """What is told of a job whose pictures were erased; None: they were not."""
    if "results" not in job.erased:
        return None
    return Gone("The pictures of the job were erased, as their time was over.", job=job.uuid)


async def _unless_hung_up(request: Request, waiting: Coroutine[None, None, Job]) -> Job:
    wait, hang_up = asyncio.ensure_future(waiting), asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((wait, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if not wait.done():
            raise ClientDisconnect
        return await wait
    finally:
        wait.cancel()
        hang_up.cancel()
        await asyncio.gather(wait, hang_up, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
