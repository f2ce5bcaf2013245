curl -sS --request POST \
  --url "$FARM_URL/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/ai/run/@cf/black-forest-labs/flux-2-dev" \
  --header "Authorization: Bearer $FARM_KEY" \
  --header 'Content-Type: multipart/form-data' \
  --form 'prompt=a sunset at the alps' \
  --form steps=25 \
  --form width=1024 \
  --form height=1024
