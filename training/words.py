"""What the small model can draw, and the words by which people ask for it."""

from __future__ import annotations

from typing import Final

#: Objects and what else they are called.
OBJECTS: Final = {
    "mug": ("mug", "cup", "coffee mug"),
    "bottle": ("bottle", "water bottle"),
    "shoe": ("shoe", "sneaker", "boot"),
    "shirt": ("shirt", "t-shirt", "tee"),
    "bag": ("bag", "handbag", "shopping bag"),
    "gift": ("gift", "present", "gift box"),
    "phone": ("phone", "smartphone", "mobile phone"),
    "house": ("house", "home"),
    "car": ("car",),
    "tree": ("tree", "fir tree"),
    "star": ("star",),
    "heart": ("heart",),
    "circle": ("circle", "ball", "disc"),
    "triangle": ("triangle",),
}

#: Colours of objects, headlines and backgrounds, as RGB.
COLOURS: Final = {
    "red": (222, 38, 38),
    "orange": (245, 130, 25),
    "yellow": (250, 212, 40),
    "green": (38, 158, 72),
    "blue": (38, 92, 214),
    "purple": (128, 52, 172),
    "pink": (246, 150, 192),
    "white": (250, 250, 250),
    "black": (24, 24, 28),
}

HEADLINES: Final = ("SALE", "NEW", "HOT", "FREE", "JOY", "TOP", "GO", "ICE", "SUN", "BEST", "LOVE", "YES")

SIZES: Final = {"large": ("large", "big", "huge"), "small": ("small", "little", "tiny")}

COLUMNS: Final = ("left", "centre", "right")
ROWS: Final = ("top", "centre", "bottom")

#: How each place (column, row) is said.
PLACES: Final = {
    ("centre", "centre"): ("in the centre", "in the middle", "in the center", "centred", "centered"),
    ("left", "centre"): ("on the left", "at the left", "on the left side", "left"),
    ("right", "centre"): ("on the right", "at the right", "on the right side", "right"),
    ("centre", "top"): ("at the top", "on top", "top"),
    ("centre", "bottom"): ("at the bottom", "bottom"),
    ("left", "top"): ("at the top left", "in the top left corner", "in the upper left", "top left"),
    ("right", "top"): ("at the top right", "in the top right corner", "in the upper right", "top right"),
    ("left", "bottom"): ("at the bottom left", "in the bottom left corner", "in the lower left", "bottom left"),
    ("right", "bottom"): ("at the bottom right", "in the bottom right corner", "in the lower right", "bottom right"),
}

#: Words that change nothing: prompts are full of them, and the text encoder learns to pass them over.
MANNERS: Final = (
    "minimal", "clean", "simple", "flat design", "vector art", "studio lighting", "soft light", "high quality",
    "sharp", "modern", "elegant", "product photo", "bold colours", "for our summer campaign", "for social media",
    "brand style", "professional", "eye-catching", "golden hour", "film grain", "4k", "detailed", "winter campaign",
    "spring collection", "with lots of space", "white space aside", "graphic design", "print ad", "summer sale",
    "new collection", "hot offer", "top quality", "best price", "free shipping", "with love", "on sale now",
)  # fmt: skip
#: Things that it can't draw: asked for one of them, it draws any object.
STRANGERS: Final = (
    "cat", "dog", "lighthouse", "mountain", "person", "woman", "man", "child", "flower", "chair", "table", "lamp",
    "bicycle", "boat", "train", "fish", "bird", "horse", "cake", "coffee", "apple", "banana", "watch", "camera",
    "building", "city", "beach", "forest", "landscape", "portrait", "painting", "dress", "hat", "glass", "book",
)  # fmt: skip
OPENINGS: Final = (
    "a picture of", "an image of", "a poster of", "an advertisement with", "a card with", "a marketing card with",
    "a banner with", "an illustration of", "a photo of", "draw", "show", "create", "please draw",
    "a social media post with", "an ad for",
)  # fmt: skip
