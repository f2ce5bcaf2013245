# One image for everything that needs no GPU (`api`), one with the pipeline (`worker-gpu`).
#   docker build --target api -t fluxfarm/api .
#   docker build --target worker-gpu -t fluxfarm/worker-gpu .
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY fluxfarm fluxfarm
RUN pip install -c constraints.txt ".[tracing]"

# torch comes as the package index builds it for this platform: on Linux the one for CUDA.
FROM build AS build-gpu
RUN pip install -c constraints.txt ".[local,tracing]"

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="Fluxfarm" \
      org.opencontainers.image.description="A self-hosted, asynchronous rendering farm for FLUX.2 images." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 fluxfarm \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/fluxfarm --shell /usr/sbin/nologin fluxfarm \
 && install -d -o fluxfarm -g fluxfarm -m 0700 /var/lib/fluxfarm
# The root file system may be read-only: what is written goes to the data folder and to /tmp.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    FLUXFARM_DATA_DIR=/var/lib/fluxfarm \
    FLUXFARM_HOST=0.0.0.0 \
    FLUXFARM_LOG_JSON=true
WORKDIR /app
COPY pyproject.toml ./
COPY migrations migrations
COPY storage storage
COPY api api
COPY workers workers
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m"]

# API, migrations, scheduler, webhooks, remote worker and Flower.
FROM runtime AS api
COPY --from=build /venv /venv
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["uvicorn", "api.main:create_app", "--factory", "--host=0.0.0.0", "--port=8000", "--timeout-graceful-shutdown=30", "--no-access-log", "--no-server-header"]

# The renderer. SIGTERM lets the render in progress end; a grace period shorter than that costs one more attempt, no job.
FROM runtime AS worker-gpu
COPY --from=build-gpu /venv /venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=10s --start-period=600s CMD ["python", "-m", "workers", "alive"]
CMD ["workers", "local"]
