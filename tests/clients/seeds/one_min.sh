curl -sS --location "$FARM_URL/api/features" \
--header "API-KEY: $FARM_KEY" \
--header 'Content-Type: application/json' \
--data '{
  "type": "IMAGE_GENERATOR",
  "model": "black-forest-labs/flux-2-dev",
  "promptObject": {
    "prompt": "A cozy coffee shop interior in the morning, warm light, steam rising from a cup",
    "aspect_ratio": "4:5",
    "num_inference_steps": 28,
    "guidance": 3.5,
    "megapixels": "1",
    "output_format": "webp",
    "output_quality": 85
  }
}'
