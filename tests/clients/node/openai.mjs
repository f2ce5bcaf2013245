// OpenAI's JavaScript client, with nothing changed but its base URL and key.
import OpenAI, { toFile } from "openai";

const { FARM_URL, FARM_KEY, MODEL, PICTURE } = process.env;
const client = new OpenAI({ apiKey: FARM_KEY, baseURL: `${FARM_URL}/v1` });
const asked = { model: MODEL, prompt: "a fox", size: "64x80", steps: 2 };
const file = (name) => toFile(Buffer.from(PICTURE, "base64"), name);
const said = {};

// The reply to this one gets lost on the way, and the client sends it again.
const first = await client.images.generate(asked);
said.urls = first.data.map((one) => one.url);
said.job = first.aiRecord.uuid;
said.total = first.usage.total_tokens;

const inside = await client.images.generate({ ...asked, n: 2, response_format: "b64_json", output_format: "webp" });
said.images = inside.data.map((one) => one.b64_json);

const edited = await client.images.edit({ ...asked, image: await file("source.png") });
const mixed = await client.images.edit({ ...asked, image: [await file("a.png"), await file("b.png")] });
said.edited = [edited, mixed].map((one) => one.aiRecord.type);

said.events = [];
for await (const event of await client.images.generate({ ...asked, steps: 4, stream: true, partial_images: 2 })) {
  said.events.push(event.type);
}
const { response, request_id } = await client.images.generate(asked).withResponse();
said.raw = [response.status, response.headers.get("x-request-id") === request_id];

said.listed = [];
for await (const model of client.models.list()) said.listed.push(model.id);
said.retrieved = (await client.models.retrieve("black-forest-labs/flux-2-dev")).id;

said.refused = [];
for (const changes of [{ n: 11 }, { model: "gpt-image-9" }]) {
  try {
    await client.images.generate({ ...asked, ...changes });
  } catch (error) {
    said.refused.push([error.constructor.name, error.code, error.param]);
  }
}
console.log(JSON.stringify(said));
