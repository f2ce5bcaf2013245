"""The API process: ``uvicorn --factory api.main:create_app``."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from api import creation, errors
from api.dashboard import app as dashboard
from api.fal_proxy import FalProxy
from api.farm import Farm, Fetch
from api.openapi import Methods, describer
from api.replies import Replies
from api.routes import (
    assets,
    batch_files,
    batches,
    campaign_exports,
    campaign_reviews,
    campaigns,
    cloudflare,
    fal,
    fal_requests,
    health,
    images,
    inbound,
    jobs,
    keys,
    loras,
    metrics,
    models,
    objects,
    one_min,
    progress,
    provenance,
    providers,
    references,
    replicate,
    replicate_delivery,
    replicate_files,
    retries,
    schemas,
    shares,
    tenants,
    usage,
    webhooks,
    workers,
)
from fluxfarm import __version__
from fluxfarm.logs import configure_logging
from fluxfarm.outbound import Outlet
from fluxfarm.settings import Settings
from fluxfarm.webhooks import OUTLET

ROUTERS = (
    retries,
    jobs,
    progress,
    references,
    assets,
    objects,
    campaigns,
    campaign_reviews,
    campaign_exports,
    shares,
    schemas,
    workers,
    webhooks,
    keys,
    loras,
    tenants,
    provenance,
    providers,
    usage,
    inbound,
    health,
    metrics,
)
OPENAI = (images, models, batch_files, batches)  #: also below ``/openai``, where Lumenfall's users have them
DIALECTS = (one_min, cloudflare, fal_requests, fal, replicate, replicate_files, replicate_delivery)


def _below_openai(route: APIRoute) -> str:
    return f"openai_{route.name}"


def _routes() -> list[BaseRoute]:
    """Every route in the order in which they are tried.

    They are the application's own: FastAPI would make those of an included router anew for each application, and look
    twice for each call.
    """
    openai = APIRouter()
    for module in OPENAI:
        openai.include_router(module.router, generate_unique_id_function=lambda route: route.name)
        openai.include_router(module.router, prefix="/openai", generate_unique_id_function=_below_openai)
    return [*(route for module in (*ROUTERS, *DIALECTS) for route in module.router.routes), *openai.routes]


ROUTES: Final = _routes()
_describe: Final = describer("Fluxfarm", __version__, ROUTES)


def create_app(settings: Settings | None = None, *, fetch: Fetch | None = None, outlet: Outlet = OUTLET) -> FastAPI:
    """The application; settings come from the environment unless given, and nothing connects before it starts.

    ``fetch`` replaces the way to strangers' pictures, ``outlet`` that to their webhooks, for tests on loopback.
    """
    if settings is None:
        settings = Settings()
        configure_logging(settings)
    app = FastAPI(
        title="Fluxfarm",
        version=__version__,
        lifespan=_lifespan(settings, fetch, outlet),
        docs_url=None,  # its page loads scripts from a foreign server, next to which nobody should type a key
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the farm has its own
    )
    app.router.routes.extend(ROUTES)
    app.state.methods = Methods(app)
    app.openapi = _describe  # type: ignore[method-assign]
    errors.install(app)
    creation.install(app)
    app.add_middleware(FalProxy)
    dashboard.install(app)
    app.add_middleware(Replies)
    return app


def _lifespan(
    settings: Settings, fetch: Fetch | None, outlet: Outlet
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
        logging.getLogger("uvicorn.access").addFilter(_without_query)
        farm = app.state.farm = Farm.open(settings, fetch, outlet)
        listening = asyncio.create_task(farm.changes.listen(), name="listen")
        sharing = asyncio.create_task(farm.open_calls.share(), name="share")
        gc.freeze()  # what is there now stays, so no collection walks through it while callers wait
        try:
            yield
        finally:
            gc.unfreeze()
            listening.cancel()
            farm.open_calls.close()
            await asyncio.gather(listening, sharing, return_exceptions=True)
            await farm.polls.close()
            await farm.entrance.close()
            farm.close()

    return lifespan


def _without_query(record: logging.LogRecord) -> bool:
    """Signatures of links stay out of the access log: uvicorn gives the path with its query as the third argument."""
    if isinstance(record.args, tuple) and len(record.args) == 5:  # noqa: PLR2004
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True
