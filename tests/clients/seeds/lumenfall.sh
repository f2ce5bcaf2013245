curl -sS -X POST \
  $FARM_URL/openai/v1/images/edits \
  -H "Authorization: Bearer $FARM_KEY" \
  -F "model=flux.2-dev" \
  -F "image=@source.png" \
  -F "prompt=Add a starry night sky to this image" \
  -F "size=1024x1024"
