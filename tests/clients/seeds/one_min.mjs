fetch(`${process.env.FARM_URL}/api/features`, {
  method: 'POST',
  headers: {
    'Content-Type': 'application/json',
    'API-KEY': process.env.FARM_KEY
  },
  body: JSON.stringify({
    type: 'IMAGE_GENERATOR',
    model: 'black-forest-labs/flux-2-dev',
    promptObject: {
      prompt: 'A cozy coffee shop interior in the morning, warm light, steam rising from a cup',
      aspect_ratio: '4:5',
      num_inference_steps: 28,
      guidance: 3.5,
      megapixels: '1',
      output_format: 'webp',
      output_quality: 85
    }
  })
}).then((response) => response.text()).then(console.log);
