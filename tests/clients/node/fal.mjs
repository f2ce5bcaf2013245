// fal's JavaScript client, with nothing changed but its proxy URL and key.
import { fal, ApiError, ValidationError } from "@fal-ai/client";

const { FARM_URL, FARM_KEY, MODEL, PICTURE } = process.env;
fal.config({ credentials: FARM_KEY, proxyUrl: { url: `${FARM_URL}/fal/proxy`, when: "always" } });
const input = { prompt: "a fox", num_inference_steps: 2, image_size: { width: 64, height: 80 } };
const said = { updates: [] };

const done = await fal.subscribe(MODEL, {
  input,
  logs: true,
  pollInterval: 50,
  onQueueUpdate: (update) => said.updates.push(update.status),
});
said.subscribed = done.data;
said.ids = done.requestId.length;

const { request_id: requestId } = await fal.queue.submit(`${MODEL}/edit`, {
  input: { ...input, image_urls: [`data:image/png;base64,${PICTURE}`] },
});
const stream = await fal.queue.streamStatus(MODEL, { requestId, logs: true });
said.streamed = (await stream.done()).status;
said.status = (await fal.queue.status(MODEL, { requestId })).status;
said.result = (await fal.queue.result(MODEL, { requestId })).data;
said.run = (await fal.run(MODEL, { input: { ...input, sync_mode: true } })).data;
try {
  await fal.queue.cancel(MODEL, { requestId });
} catch (error) {
  said.late = [error instanceof ApiError, error.status, error.body.status];
}
try {
  await fal.run(MODEL, { input: { ...input, num_inference_steps: 0 } });
} catch (error) {
  said.refused = [error instanceof ValidationError, error.status, error.getFieldErrors("num_inference_steps").length];
}
console.log(JSON.stringify(said));
