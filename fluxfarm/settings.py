"""Every setting of the farm in one place; read from the environment once, when a process starts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from fluxfarm.marking import Marking
from fluxfarm.policies import PerhapsPath
from fluxfarm.sources import ModelSource, parse_sources

Quantization = Literal["none", "fp8"]
Compile = Literal["none", "regional"]
ChannelsLast = Literal["auto", "on", "off"]
S3Checksums = Literal["auto", "when_required", "when_supported"]


class Settings(Marking):
    """What the environment says; ``Settings()`` is made in ``create_app``, at a worker's boot and by the CLI."""

    # --- where the parts are -------------------------------------------------------------------------------------
    database_url: SecretStr = Field(
        SecretStr(""),
        alias="DATABASE_URL",
        description="PostgreSQL, as `postgresql://user:password@host/name`. Empty: `fluxfarm up` starts its own.",
    )
    replica_url: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_REPLICA_URL",
        description="A standby of that PostgreSQL that answers lists, some moments late. Empty: the primary does.",
    )
    replica_lag: float = Field(
        30.0,
        alias="FLUXFARM_REPLICA_LAG",
        gt=0,
        description="Seconds that the standby may be behind; the primary answers while it is more.",
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        alias="REDIS_URL",
        description="Valkey or Redis, as `redis://…`. Empty: `fluxfarm up` starts its own.",
    )
    broker_url: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_BROKER_URL",
        description=(
            "RabbitMQ for the tickets, as `amqp://user:password@host/vhost`, in quorum queues. Empty: `REDIS_URL`, "
            "which limits and previews need all the same."
        ),
    )
    data_dir: Path = Field(
        Path(".fluxfarm"),
        alias="FLUXFARM_DATA_DIR",
        description="Folder of the embedded database, the local objects, the small models and `farm.json`.",
    )

    # --- the API -------------------------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", alias="FLUXFARM_HOST", description="Address that the API listens on.")
    port: int = Field(8000, alias="FLUXFARM_PORT", ge=0, le=65535, description="Port of the API; 0 takes a free one.")
    public_url: str = Field(
        "",
        alias="FLUXFARM_PUBLIC_URL",
        description="Where callers reach the API; links in replies start with it. Empty: `http://host:port`.",
    )
    body_limit: int = Field(
        8 * 2**20,
        alias="FLUXFARM_BODY_LIMIT",
        ge=1024,
        description="Largest JSON body in bytes; data URIs count, uploads have their own limit.",
    )
    upload_limit: int = Field(
        20 * 2**20, alias="FLUXFARM_UPLOAD_LIMIT", ge=1024, description="Largest reference image in bytes."
    )
    campaign_limit: int = Field(
        64 * 2**20,
        alias="FLUXFARM_CAMPAIGN_LIMIT",
        ge=1024,
        description="Largest specification of a campaign in bytes, its rows included.",
    )
    api_threads: int = Field(
        40, alias="FLUXFARM_API_THREADS", ge=1, le=1000, description="Threads of one API process; its pool is as large."
    )
    longest_wait: int = Field(
        300,
        alias="FLUXFARM_LONGEST_WAIT",
        ge=1,
        le=3600,
        description=(
            "Seconds that a call of a dialect without polling (OpenAI, Cloudflare, 1min.ai) waits for its pictures; "
            "then it ends with the job's id, and the job goes on."
        ),
    )
    rate_limit: int = Field(
        12_000,
        alias="FLUXFARM_RATE_LIMIT",
        ge=0,
        description="Calls a minute of one API key, unless its tenant or the key has another limit; 0: no limit.",
    )
    open_calls: int = Field(
        500,
        alias="FLUXFARM_OPEN_CALLS",
        ge=0,
        description="Calls of one API key that may be open at once, waiting ones and event streams too; 0: no limit.",
    )
    idempotency_ttl: int = Field(
        86_400,
        alias="FLUXFARM_IDEMPOTENCY_TTL",
        ge=86_400,
        description="Seconds that an `Idempotency-Key` is remembered; a day at least.",
    )
    allow_http_references: bool = Field(
        False,
        alias="FLUXFARM_ALLOW_HTTP_REFERENCES",
        description="Also fetch reference URLs over plain http (port 80).",
    )

    secret_key: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_SECRET_KEY",
        description=(
            "Key that seals what the farm keeps of secrets: the webhooks' signing secrets, tenants' own provider keys, "
            "the dashboard's sessions and the replies kept for an `Idempotency-Key`; at least 16 characters, the same "
            "for every process; `new,old` while it is changed. Empty: made once and kept in the data folder."
        ),
    )

    # --- objects and links ---------------------------------------------------------------------------------------
    link_ttl: int = Field(
        1800, alias="FLUXFARM_LINK_TTL", ge=1, le=604_800, description="Life of a presigned URL in seconds."
    )
    link_secret: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_LINK_SECRET",
        description=(
            "Key that signs the links of the local store, at least 16 characters; `new,old` while it is changed. "
            "Empty: made once and kept in the data folder."
        ),
    )
    s3_bucket: str = Field(
        "", alias="S3_BUCKET", description="Bucket for results. Empty: results go to the data folder."
    )
    s3_endpoint_url: str = Field("", alias="S3_ENDPOINT_URL", description="S3 server. Empty: AWS.")
    s3_public_endpoint_url: str = Field(
        "",
        alias="S3_PUBLIC_ENDPOINT_URL",
        description="The same server as callers reach it; presigned URLs name it. Empty: as above.",
    )
    s3_region: str = Field("us-east-1", alias="S3_REGION", description="Region that requests are signed for.")
    s3_access_key_id: str = Field("", alias="S3_ACCESS_KEY_ID", description="Key id. Empty: boto3's own chain.")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), alias="S3_SECRET_ACCESS_KEY", description="Its secret.")
    s3_checksums: S3Checksums = Field(
        "auto",
        alias="S3_CHECKSUMS",
        description="`when_required` suits other servers than AWS, `when_supported` AWS; `auto` picks by the endpoint.",
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", alias="S3_ADDRESSING_STYLE", description="`path` or `virtual`; `auto`: path with an own endpoint."
    )

    # --- models and workers --------------------------------------------------------------------------------------
    models: Annotated[tuple[ModelSource, ...], NoDecode] = Field(
        default_factory=lambda: parse_sources("fluxfarm/flux-2-klein-small,fluxfarm/flux-2-small"),
        alias="FLUXFARM_MODELS",
        description=(
            "Models that this farm renders itself: `slug`, `slug=/folder` or `slug=hub/id@revision`, separated by "
            "commas. Of the two small ones the klein shape comes with the farm, the dev shape is built on first use."
        ),
    )
    allow_downloads: bool = Field(
        False,
        alias="FLUXFARM_ALLOW_DOWNLOADS",
        description="Let a worker fetch weights from the hub; off, it uses only what is on the disk.",
    )
    loras: PerhapsPath = Field(
        None,
        alias="FLUXFARM_LORAS",
        description=(
            "Folder of LoRA files (`name.safetensors`) that jobs may name; API and workers need it. Empty: no LoRAs."
        ),
    )
    device: str = Field("auto", alias="FLUXFARM_DEVICE", description="`auto`, `cuda`, `cuda:1`, `mps` or `cpu`.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", alias="FLUXFARM_DTYPE", description="`auto` is bfloat16 on a GPU and float32 on a CPU."
    )
    quantization: Quantization = Field(
        "none",
        alias="FLUXFARM_QUANTIZATION",
        description=(
            "`fp8` does the transformer's products in 8 bits, faster and a little different; it needs torchao and a "
            "GPU of compute capability 8.9 or more."
        ),
    )
    compile: Compile = Field(
        "none",
        alias="FLUXFARM_COMPILE",
        description="`regional` compiles the transformer's blocks at a worker's start: minutes first, faster then.",
    )
    attention: str = Field(
        "auto",
        alias="FLUXFARM_ATTENTION",
        pattern=r"^[a-z0-9_]{1,40}$",
        description=(
            "Attention backend by diffusers' name; `auto` times those that are installed when a model is loaded, and "
            "keeps torch's own (`native`) unless another is 3 % faster."
        ),
    )
    channels_last: ChannelsLast = Field(
        "auto",
        alias="FLUXFARM_CHANNELS_LAST",
        description="Memory layout of the VAE: `auto` is `on` on an NVIDIA GPU.",
    )
    slots: int = Field(
        3,
        alias="FLUXFARM_SLOTS",
        ge=1,
        le=64,
        description="Threads of a worker; one renders while the others encode and upload.",
    )
    lease: float = Field(30.0, alias="FLUXFARM_LEASE", gt=0, description="Seconds that a running attempt is trusted.")
    lease_renewal: float = Field(
        10.0, alias="FLUXFARM_LEASE_RENEWAL", gt=0, description="Seconds between two renewals of a lease."
    )
    sweep_interval: float = Field(
        5.0, alias="FLUXFARM_SWEEP_INTERVAL", gt=0, description="Seconds between two looks for expired leases."
    )
    step_timeout: float = Field(
        300.0,
        alias="FLUXFARM_STEP_TIMEOUT",
        gt=0,
        description=(
            "Seconds without a denoising step after which a worker counts as hung and ends itself; loading and "
            "compiling count, so set it above those."
        ),
    )
    upsampling_url: str = Field(
        "",
        alias="FLUXFARM_UPSAMPLING_URL",
        description=(
            "OpenAI-compatible chat endpoint (`https://…/v1`) that rewrites the prompts of jobs with "
            "`prompt_upsampling`. Empty: only models whose own text encoder can."
        ),
    )
    upsampling_key: SecretStr = Field(SecretStr(""), alias="FLUXFARM_UPSAMPLING_KEY", description="Its key.")
    upsampling_model: str = Field("", alias="FLUXFARM_UPSAMPLING_MODEL", description="The model that is asked there.")
    own_upsampling: bool = Field(
        True,
        alias="FLUXFARM_OWN_UPSAMPLING",
        description=(
            "Without that endpoint, keep the part of FLUX.2 [dev]'s text encoder that rewrites prompts; off, it leaves "
            "12 GB of the device free, and pictures stay the same to the bit."
        ),
    )
    store_patience: float = Field(
        600.0,
        alias="FLUXFARM_STORE_PATIENCE",
        ge=0,
        description="Seconds that a worker keeps drawn pictures while the object store is away, then fails.",
    )
    max_attempts: int = Field(
        3,
        alias="FLUXFARM_MAX_ATTEMPTS",
        ge=1,
        le=20,
        description="Starts after which a failure is final; a job that killed so many workers is FAILED `poison`.",
    )
    window: float = Field(
        2.0,
        alias="FLUXFARM_WINDOW",
        gt=0,
        description="Tickets per queue at the broker, as a multiple of the live slots; the rest waits in Postgres.",
    )

    # --- remote providers ----------------------------------------------------------------------------------------
    remote: Literal["auto", "on", "off"] = Field(
        "auto",
        alias="FLUXFARM_REMOTE",
        description=(
            "Whether jobs may go to remote providers: `auto` when one is configured below, `on` also for tenants' own "
            "keys alone."
        ),
    )
    fal_key: SecretStr = Field(SecretStr(""), alias="FLUXFARM_FAL_KEY", description="Key of fal. Empty: not used.")
    fal_url: str = Field("https://queue.fal.run", alias="FLUXFARM_FAL_URL", description="Its queue.")
    replicate_key: SecretStr = Field(
        SecretStr(""), alias="FLUXFARM_REPLICATE_KEY", description="Token of Replicate. Empty: not used."
    )
    replicate_url: str = Field("https://api.replicate.com/v1", alias="FLUXFARM_REPLICATE_URL", description="Its API.")
    replicate_webhook_secret: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_REPLICATE_WEBHOOK_SECRET",
        description="`whsec_…` of its account; empty: its webhooks are refused, and the farm only polls.",
    )
    bfl_key: SecretStr = Field(
        SecretStr(""), alias="FLUXFARM_BFL_KEY", description="Key of Black Forest Labs' API. Empty: not used."
    )
    bfl_url: str = Field("https://api.bfl.ai", alias="FLUXFARM_BFL_URL", description="Its API, perhaps of one region.")
    cloudflare_key: SecretStr = Field(
        SecretStr(""), alias="FLUXFARM_CLOUDFLARE_KEY", description="Token of Cloudflare Workers AI. Empty: not used."
    )
    cloudflare_url: str = Field(
        "https://api.cloudflare.com/client/v4", alias="FLUXFARM_CLOUDFLARE_URL", description="Its API."
    )
    cloudflare_account: str = Field(
        "", alias="FLUXFARM_CLOUDFLARE_ACCOUNT", description="Id of the Cloudflare account, part of its URLs."
    )
    onemin_key: SecretStr = Field(
        SecretStr(""), alias="FLUXFARM_ONEMIN_KEY", description="Key of 1min.ai. Empty: not used."
    )
    onemin_url: str = Field("https://api.1min.ai", alias="FLUXFARM_ONEMIN_URL", description="Its API.")
    openai_endpoints: SecretStr = Field(
        SecretStr(""),
        alias="FLUXFARM_OPENAI_ENDPOINTS",
        description=(
            "Image APIs of the OpenAI shape, separated by commas: `name=url=key`, then, each behind a bar, the models "
            "that it has (`slug` or `slug=its own id`) and `price=USD` an image. The names `aigateway`, `lumenfall`, "
            "`together` and `deepinfra` bring their own models; any other is taken for another Fluxfarm."
        ),
    )
    prices: str = Field(
        "",
        alias="FLUXFARM_PRICES",
        description=(
            "Your own prices in place of the price lists: `provider/model=USD` of one image, separated by commas, as "
            "`fal/black-forest-labs/flux-2-dev=0.010`."
        ),
    )
    remote_slots: int = Field(
        32, alias="FLUXFARM_REMOTE_SLOTS", ge=1, le=256, description="Jobs that one remote worker waits for at once."
    )
    remote_timeout: float = Field(
        300.0,
        alias="FLUXFARM_REMOTE_TIMEOUT",
        gt=0,
        description="Seconds that a provider may take for a call before the farm gives it up.",
    )
    remote_patience: float = Field(
        60.0,
        alias="FLUXFARM_REMOTE_PATIENCE",
        ge=0,
        description=(
            "Seconds that a remote worker waits for a provider that stopped answering, or for the webhook of a call "
            "whose answer was lost; then the call counts as paid."
        ),
    )
    gpu_second_price: Decimal = Field(
        Decimal(0),
        alias="FLUXFARM_GPU_SECOND_PRICE",
        ge=0,
        description="USD that a second of a render on the farm's own devices is charged at.",
    )

    # --- the farm around it --------------------------------------------------------------------------------------
    flower_port: int = Field(
        5555, alias="FLUXFARM_FLOWER_PORT", ge=0, le=65535, description="Port of Flower; 0 takes a free one."
    )

    # --- the client ----------------------------------------------------------------------------------------------
    url: str = Field("", alias="FLUXFARM_URL", description="Farm that the client and the CLI talk to.")
    api_key: SecretStr = Field(SecretStr(""), alias="FLUXFARM_API_KEY", description="Key that they send.")
    aws_access_key_id: str = Field(
        "", alias="AWS_ACCESS_KEY_ID", description="Your own key id, for `campaign export --to s3://bucket/prefix`."
    )
    aws_secret_access_key: SecretStr = Field(
        SecretStr(""), alias="AWS_SECRET_ACCESS_KEY", description="Its secret; it never reaches the farm."
    )
    aws_session_token: SecretStr = Field(
        SecretStr(""), alias="AWS_SESSION_TOKEN", description="Of a temporary key; empty: none."
    )
    aws_region: str = Field("us-east-1", alias="AWS_REGION", description="Region of that bucket.")
    aws_endpoint_url: str = Field("", alias="AWS_ENDPOINT_URL", description="S3 server of that bucket. Empty: AWS.")

    @field_validator("models", mode="before")
    @classmethod
    def _read_models(cls, value: object) -> object:
        return parse_sources(value) if isinstance(value, str) else value

    @property
    def base_url(self) -> str:
        """Where callers reach the API, without a slash at the end."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")
