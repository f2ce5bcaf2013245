"""The files of `fluxfarm campaign init`: a small campaign to change."""

from __future__ import annotations

from typing import Final

SPEC: Final = """\
# Plan it:  fluxfarm campaign plan campaign.yaml
# Run it:   fluxfarm campaign run campaign.yaml
# The schema for your editor: fluxfarm's /schemas/campaign.json
name: first-campaign
model: fluxfarm/flux-2-klein-small
prompt: "{product} in {colour}, product photo, {mood}"

rows: products.csv
key: sku

axes:
  mood: [morning light, studio light]

placements:
  - {name: square, size: 64x64}
  - {name: story, size: 64x112}

variants: 1
seed: 7
naming: "{sku}/{placement}-{mood|slug}"
output_format: png
"""
ROWS: Final = """\
sku,product,colour
A-100,Garden chair,red
A-101,Beach umbrella,yellow
B-200,Cool box,blue
"""
FILES: Final = {"campaign.yaml": SPEC, "products.csv": ROWS}
