import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["FARM_URL"] + "/v1", api_key=os.environ["FARM_KEY"])

r = client.images.generate(
    model="black-forest-labs/flux-2-dev",
    prompt="a cyberpunk cat at sunset",
    size="1024x1024",
)
print(r.data[0].url)
