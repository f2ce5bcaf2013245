// Replicate's JavaScript client, with nothing changed but its base URL and token.
import Replicate, { validateWebhook } from "replicate";

const { FARM_URL, FARM_KEY, MODEL, PICTURE } = process.env;
const replicate = new Replicate({ auth: FARM_KEY, baseUrl: `${FARM_URL}/replicate/v1` });
const size = { aspect_ratio: "custom", width: 64, height: 80 };
const said = {};

said.run = await replicate.run(MODEL, { input: { prompt: "a fox", steps: 2, ...size } });
said.edited = await replicate.run(MODEL, {
  input: { prompt: "dusk", steps: 1, ...size, input_images: [Buffer.from(PICTURE, "base64")] },
});
const made = await replicate.predictions.create({ version: MODEL, input: { prompt: "a fox", steps: 1, ...size } });
said.waited = (await replicate.wait(made, { interval: 50 })).status;
said.got = (await replicate.predictions.get(made.id)).id === made.id;
said.listed = (await replicate.predictions.list()).results.length;
said.canceled = (await replicate.predictions.cancel(made.id)).status;

const { key } = await replicate.webhooks.default.secret.get();
said.secret = key.startsWith("whsec_");
said.valid = await validateWebhook({
  id: "msg_1",
  timestamp: "1700000000",
  body: '{"id":"p1","status":"succeeded","output":"https://replicate.delivery/x.webp"}',
  secret: "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3",
  signature: "v1,vWmM3aUNI2mTosPC7dbBMBSSeEV9wZUTd1MPS/FZEhg=",
});
try {
  await replicate.run("owner/nobody", { input: { prompt: "x" } });
} catch (error) {
  said.refused = error.response.status;
}
console.log(JSON.stringify(said));
