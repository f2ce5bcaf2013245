curl -sS $FARM_URL/v1/images/generations \
  -H "Authorization: Bearer $FARM_KEY" \
  -H "Content-Type: application/json" \
  -d '{"model":"black-forest-labs/flux-2-dev","prompt":"a cyberpunk cat"}'
