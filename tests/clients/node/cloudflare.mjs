// Cloudflare's TypeScript SDK, with nothing changed but its base URL and token.
import Cloudflare from "cloudflare";

const { FARM_URL, FARM_KEY, MODEL, PICTURE } = process.env;
const client = new Cloudflare({ apiToken: FARM_KEY, baseURL: `${FARM_URL}/client/v4`, maxRetries: 0 });
const asked = { account_id: "023e105f4ecef8ad9ca31a8372d0c353", prompt: "a fox", width: 64, height: 80, num_steps: 1 };
const said = {};

said.image = (await client.ai.run(MODEL, asked)).image;
said.edited = (await client.ai.run(MODEL, { ...asked, image_b64: PICTURE })).image;
try {
  await client.ai.run("@cf/black-forest-labs/flux-9", asked);
} catch (error) {
  said.refused = [error.status, error.errors.map((one) => one.code)];
}
console.log(JSON.stringify(said));
