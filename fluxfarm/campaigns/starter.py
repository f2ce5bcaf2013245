"""The files of `fluxfarm campaign init`: a small campaign to change."""

from __future__ import annotations

from typing import Final

SPEC: Final = """\
# Plan it:  fluxfarm campaign plan campaign.yaml
# Run it:   fluxfarm campaign run campaign.yaml
# The schema for your editor: fluxfarm's /schemas/campaign.json
name: first-campaign
model: fluxfarm/flux-2-klein-small
prompt: "a large {colour} {product} in the centre on a {background} background, {mood}"

rows: products.csv
key: sku

axes:
  mood: [morning light, studio light]

placements:
  - {name: square, size: 128x128}
  - {name: story, size: 128x224}

variants: 1
seed: 7
naming: "{sku}/{placement}-{mood|slug}"
output_format: png
"""
ROWS: Final = """\
sku,product,colour,background
A-100,mug,red,white
A-101,bottle,yellow,purple
B-200,shoe,blue,orange
"""
FILES: Final = {"campaign.yaml": SPEC, "products.csv": ROWS}
