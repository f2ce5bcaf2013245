import OpenAI from 'openai';
import fs from 'fs';

const client = new OpenAI({
  apiKey: process.env.FARM_KEY,
  baseURL: `${process.env.FARM_URL}/openai/v1`
});

const response = await client.images.edit({
  model: 'flux.2-dev',
  image: fs.createReadStream('source.png'),
  prompt: 'Add a starry night sky to this image',
  size: '1024x1024'
});
console.log(response.data[0].url);
