import os

from openai import OpenAI

client = OpenAI(api_key=os.environ["FARM_KEY"], base_url=os.environ["FARM_URL"] + "/openai/v1")

response = client.images.edit(
    model="flux.2-dev",
    image=open("source.png", "rb"),
    prompt="Add a starry night sky to this image",
    size="1024x1024",
)
print(response.data[0].url)
