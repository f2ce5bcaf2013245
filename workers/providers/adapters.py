"""Which adapter speaks a provider's protocol."""

from __future__ import annotations

from fluxfarm.remotes import Remote
from workers.providers.bfl import BflProvider
from workers.providers.cloudflare import CloudflareProvider
from workers.providers.contract import Provider
from workers.providers.fal import FalProvider
from workers.providers.onemin import OneminProvider
from workers.providers.openai import OpenAIProvider
from workers.providers.replicate import ReplicateProvider


def adapter_for(remote: Remote) -> Provider:
    """A new adapter; one serves all accounts of its provider."""
    match remote.protocol:
        case "fal":
            return FalProvider()
        case "replicate":
            return ReplicateProvider()
        case "bfl":
            return BflProvider()
        case "cloudflare":
            return CloudflareProvider()
        case "onemin":
            return OneminProvider()
        case "openai":
            return OpenAIProvider(remote.name, remote.base_url)
