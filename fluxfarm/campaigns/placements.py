"""Where pictures will stand: exact sizes of the common formats under their names.

Listed is what every FLUX.2 model draws to the pixel: at most 4 megapixels and, before the crop to the exact size, sides
of 64 pixels and more and at most 8 to 1. Print is at the resolution that 4 megapixels allow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from fluxfarm.sizes import Size

#: pixels; social: the networks' own recommendations, banners: IAB fixed sizes, print: ISO 216 at the given dpi
PRESETS: Final = MappingProxyType(
    {
        "instagram-square": Size(1080, 1080),
        "instagram-portrait": Size(1080, 1350),
        "instagram-grid": Size(1080, 1440),
        "instagram-landscape": Size(1080, 566),
        "instagram-story": Size(1080, 1920),
        "instagram-reel-cover": Size(1080, 1920),
        "facebook-post": Size(1200, 630),
        "facebook-square": Size(1080, 1080),
        "facebook-story": Size(1080, 1920),
        "facebook-cover": Size(820, 312),
        "facebook-event": Size(1920, 1005),
        "x-post": Size(1600, 900),
        "x-header": Size(1500, 500),
        "linkedin-post": Size(1200, 627),
        "linkedin-square": Size(1200, 1200),
        "linkedin-cover": Size(1584, 396),
        "pinterest-pin": Size(1000, 1500),
        "tiktok-video": Size(1080, 1920),
        "youtube-thumbnail": Size(1280, 720),
        "youtube-banner": Size(2560, 1440),
        "snapchat-ad": Size(1080, 1920),
        "whatsapp-status": Size(1080, 1920),
        "story": Size(1080, 1920),
        "open-graph": Size(1200, 630),
        "hero-wide": Size(1920, 1080),
        "hero-banner": Size(1920, 640),
        "email-header": Size(600, 200),
        "banner-medium-rectangle": Size(300, 250),
        "banner-large-rectangle": Size(336, 280),
        "banner-half-page": Size(300, 600),
        "banner-wide-skyscraper": Size(160, 600),
        "banner-skyscraper": Size(120, 600),
        "banner-billboard": Size(970, 250),
        "banner-portrait": Size(300, 1050),
        "banner-square": Size(250, 250),
        "banner-small-square": Size(200, 200),
        "banner-large-mobile": Size(320, 100),
        "banner-mobile": Size(320, 50),
        "banner-leaderboard": Size(728, 90),
        "banner-interstitial": Size(320, 480),
        "print-a6-300dpi": Size(1240, 1748),
        "print-a5-200dpi": Size(1165, 1654),
        "print-a4-150dpi": Size(1240, 1754),
        "print-a4-200dpi": Size(1654, 2339),
        "print-a3-100dpi": Size(1169, 1654),
        "print-postcard-300dpi": Size(1748, 1240),
        "print-business-card-300dpi": Size(1004, 650),
        "print-flyer-dl-300dpi": Size(1169, 2480),
    }
)
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Place:
    """A placement: its name in file names, and its size in pixels."""

    name: str
    size: Size


def name_of(text: str) -> str:
    """What a size is called in a file name: ``16:9`` cannot stand there."""
    return re.sub(r"[^A-Za-z0-9.-]+", "x", text.strip()).strip("x") or "size"
