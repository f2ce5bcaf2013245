// The playground: price and time before the click, the picture while it is drawn, the same call as code.
import { call, element, follow, Refused, say } from "./shell.js";
import { encode, snippets } from "./snippets.js";

const root = "/dashboard";
const form = document.getElementById("play");
const field = (name) => form.elements[name];
const error = document.getElementById("form-error");
const estimate = document.getElementById("estimate");
const results = document.getElementById("results");
const list = document.getElementById("references");
const lock = document.getElementById("lock");
const KEPT = "fluxfarm-playground";
const references = []; // {id}
const streams = new WeakMap(); // of the cards that are shown
const CARDS = 4; // at once; the others are in the history
let language = "curl";

for (const part of document.querySelectorAll(".with-script")) part.hidden = false;

// --- the form ------------------------------------------------------------------------------------------------------

function profile() {
  const chosen = field("model").selectedOptions[0].dataset;
  const numbers = (text) => text.split(",").map(Number);
  return { summary: chosen.summary, width: +chosen.width, height: +chosen.height, steps: numbers(chosen.steps), guidance: numbers(chosen.guidance), references: +chosen.references, images: +chosen.images };
}

function fit() {
  const model = profile();
  document.getElementById("model-summary").textContent = model.summary;
  for (const [name, [low, high, usual]] of Object.entries({ steps: model.steps, guidance: model.guidance })) {
    const input = field(name);
    input.min = low;
    input.max = high;
    input.placeholder = usual;
    input.disabled = low === high;
    if (input.value !== "" && (+input.value < low || +input.value > high || low === high)) input.value = "";
  }
  field("n").max = model.images;
  if (!field("size").value) shape("1:1");
}

function shape(ratio) {
  const [wide, tall] = ratio.split(":").map(Number);
  const { width, height } = profile();
  const side = Math.sqrt((width * height) / (wide * tall));
  const fitted = (value) => Math.max(64, Math.round(value / 16) * 16);
  field("size").value = `${fitted(side * wide)}x${fitted(side * tall)}`;
  press(ratio);
}

function press(ratio) {
  for (const button of form.querySelectorAll("[data-ratio]")) button.setAttribute("aria-pressed", String(button.dataset.ratio === ratio));
}

function body() {
  const asked = { prompt: field("prompt").value };
  if (field("size").value.trim()) asked.size = field("size").value.trim();
  const seed = field("seed").value.trim();
  if (seed) asked.seed = seed.replace(/^0+(?=.)/, ""); // a text: see encode
  for (const [name, target] of [["steps", "num_inference_steps"], ["guidance", "guidance"], ["n", "n"]]) {
    const input = field(name);
    if (input.value !== "" && !input.disabled) asked[target] = Number(input.value);
  }
  asked.output_format = field("output_format").value;
  if (references.length) asked.images = references.map((one) => one.id);
  return {
    type: references.length ? "IMAGE_EDITOR" : "IMAGE_GENERATOR", model: field("model").value, promptObject: asked, provider: field("provider").value,
    previews: Number(form.dataset.previews), tags: [form.dataset.tag],
  };
}

const complain = (text) => { error.textContent = text; error.hidden = !text; };

// --- price and time ------------------------------------------------------------------------------------------------

let asking = 0;
let timer = 0;
function plan() {
  clearTimeout(timer);
  timer = setTimeout(ask, 350);
  code();
  sessionStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(new FormData(form))));
}

async function ask() {
  const mine = ++asking;
  if (!field("prompt").value.trim()) return tell("Write a prompt to see price and time.");
  try {
    const told = await call("/v1/jobs?dryRun=true", { method: "POST", text: encode(body()) });
    if (mine !== asking) return;
    const price = Number(told.price);
    const wait = told.eta ? `about ${span((new Date(told.eta) - Date.now()) / 1000)}` : "no forecast yet";
    estimate.replaceChildren(element("strong", {}, price ? `$${price.toFixed(price < 0.1 ? 4 : 2)}` : "No charge"), ` · ${wait} · ${told.provider === "local" ? "own workers" : told.provider}`);
  } catch (problem) {
    if (mine === asking && problem instanceof Refused) tell(problem.message);
  }
}

const tell = (text) => estimate.replaceChildren(element("span", { class: "muted" }, text));
const span = (seconds) => (seconds < 1.5 ? "1 s" : seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);

// --- references ----------------------------------------------------------------------------------------------------

async function add(files) {
  const limit = Number(form.dataset.uploadLimit);
  complain("");
  for (const file of files) {
    if (references.length >= profile().references) { complain(`This model takes ${profile().references} references.`); break; }
    if (file.size > limit) { complain(`${file.name} has ${Math.round(file.size / 1048576)} MB; at most ${Math.round(limit / 1048576)} MB are taken. Scale it down or save it as JPEG.`); continue; }
    const content = new FormData();
    content.append("file", file, "reference");
    try {
      const kept = await call("/v1/references", { method: "POST", form: content });
      const one = { id: kept.id };
      references.push(one);
      const picture = element("img", { alt: `Reference ${references.length}: ${file.name}`, src: await small(file) });
      const drop = element("button", { type: "button", class: "icon-button", "aria-label": `Take ${file.name} away`, onclick: () => { references.splice(references.indexOf(one), 1); item.remove(); plan(); } }, "×");
      const item = element("li", {}, picture, drop);
      list.append(item);
    } catch (problem) { complain(`${file.name}: ${problem.message}`); }
  }
  plan();
}

const small = (file) => new Promise((resolve) => { const reader = new FileReader(); reader.onload = () => resolve(reader.result); reader.readAsDataURL(file); });

const drop = document.getElementById("drop");
for (const name of ["dragenter", "dragover"]) form.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("is-over"); });
for (const name of ["dragleave", "drop"]) form.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("is-over"); });
form.addEventListener("drop", (event) => add(event.dataTransfer.files));
form.addEventListener("paste", (event) => { const files = [...event.clipboardData.files]; if (files.length) { event.preventDefault(); add(files); } });
document.getElementById("files").addEventListener("change", (event) => { add([...event.target.files]); event.target.value = ""; });

// --- rendering -----------------------------------------------------------------------------------------------------

let pending = null; // {key, wanted, text, seed}
async function render() {
  complain("");
  const asked = body();
  const wanted = encode(asked);
  // A call whose reply was lost is sent again as it was, with its key and its seed.
  if (pending?.wanted !== wanted) {
    asked.promptObject.seed ??= String(crypto.getRandomValues(new Uint32Array(1))[0]);
    pending = { key: random(), wanted, text: encode(asked), seed: asked.promptObject.seed };
  }
  const button = document.getElementById("render");
  button.disabled = true;
  try {
    const { aiRecord } = await call("/v1/jobs", { method: "POST", text: pending.text, headers: { "Idempotency-Key": pending.key } });
    const { seed } = pending;
    pending = null;
    watch(aiRecord, seed);
  } catch (problem) { complain(problem.message); } finally { button.disabled = false; }
}

const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function watch(record, seed) {
  results.querySelector(".is-empty")?.remove();
  const word = element("p", { class: "muted" }, "Waits for its turn.");
  const picture = element("img", { alt: "The picture so far", hidden: true });
  const stage = element("div", { class: "stage" }, picture, word);
  const progress = element("progress", { class: "bar", value: 0, max: record.progress.steps || 1, "aria-label": "Steps" });
  const state = element("span", { class: "badge is-queued" }, "Queued");
  const stop = element("button", { type: "button", class: "danger", onclick: async () => { stop.disabled = true; try { await call(`/v1/jobs/${record.uuid}/cancel`, { method: "POST" }); } catch (problem) { say(problem.message); } } }, "Cancel");
  const open = element("a", { class: "button", href: `${root}/jobs/${record.uuid}` }, "Open the job");
  const foot = element("div", { class: "row result-foot" }, state, element("span", { class: "spring" }), open, stop);
  const card = element("article", { class: "card result", "aria-label": record.aiRecordDetail.promptObject.prompt.slice(0, 120) }, stage, progress, foot);
  results.prepend(card);
  const mark = (status) => { state.textContent = status[0] + status.slice(1).toLowerCase(); state.className = `badge is-${status.toLowerCase()}`; };
  const source = follow(`${root}/v1/jobs/${record.uuid}/events`, {
    async status(told) {
      mark(told.status);
      if (told.status === "RUNNING") word.textContent = "Draws.";
      if (!["SUCCESS", "FAILED", "CANCELED"].includes(told.status)) return;
      source.close();
      stop.remove();
      progress.remove();
      if (told.status === "SUCCESS") await finish(record.uuid, stage, card, seed).catch((problem) => { picture.hidden = true; word.hidden = false; word.textContent = `The picture is done, but cannot be shown: ${problem.message} Open the job to see it.`; });
      else { picture.hidden = true; word.hidden = false; word.textContent = told.error?.message || "It ended without a picture."; }
    },
    progress(told) { progress.max = told.steps; progress.value = told.step; },
    preview(told) { picture.src = `data:${told.contentType};base64,${told.image}`; picture.hidden = false; word.hidden = true; stage.dataset.previews = 1 + Number(stage.dataset.previews || 0); },
  });
  streams.set(card, source);
  while (results.children.length > CARDS) {
    streams.get(results.lastChild)?.close();
    results.lastChild.remove();
  }
}

async function finish(uuid, stage, card, seed) {
  const { aiRecord } = await call(`/v1/jobs/${uuid}`);
  const count = aiRecord.temporaryUrls.length;
  const prompt = aiRecord.aiRecordDetail.promptObject.prompt;
  const pictures = Array.from({ length: count }, (_, n) => element("a", { class: "zoom", href: `${root}/pictures/${uuid}/${n}` }, element("img", { alt: `Picture ${n + 1}: ${prompt.slice(0, 200)}`, src: `${root}/pictures/${uuid}/${n}` })));
  const grid = element("div", { class: count > 1 ? "stage is-many" : "stage" }, ...pictures);
  grid.dataset.previews = stage.dataset.previews || 0;
  stage.replaceWith(grid);
  card.querySelector(".result-foot .spring").before(element("span", { class: "muted small" }, `seed ${seed}`));
  if (lock.getAttribute("aria-pressed") === "true" && !field("seed").value) field("seed").value = seed;
  const history = document.getElementById("history");
  history.querySelector("p")?.remove();
  history.prepend(element("a", { href: `${root}/jobs/${uuid}`, title: prompt.slice(0, 120) }, element("img", { class: "thumb", src: `${root}/thumbnails/${uuid}/0`, alt: prompt.slice(0, 120) })));
  lock.dataset.last = seed;
  ask();
}

// --- the same as code ----------------------------------------------------------------------------------------------

function code() {
  document.getElementById("code").textContent = snippets[language](form.dataset.base, body());
}

for (const button of document.querySelectorAll("[data-code]")) {
  button.addEventListener("click", () => {
    language = button.dataset.code;
    for (const other of document.querySelectorAll("[data-code]")) other.setAttribute("aria-pressed", String(other === button));
    code();
  });
}
document.getElementById("copy").addEventListener("click", async (event) => {
  const text = document.getElementById("code");
  try {
    await navigator.clipboard.writeText(text.textContent);
    event.target.textContent = "Copied";
    setTimeout(() => { event.target.textContent = "Copy"; }, 1500);
  } catch { getSelection().selectAllChildren(text); }
});

// --- what happens when ---------------------------------------------------------------------------------------------

const kept = JSON.parse(sessionStorage.getItem(KEPT) || "{}");
if (!location.search && !field("prompt").value) for (const [name, value] of Object.entries(kept)) if (field(name) && typeof value === "string") field(name).value = value;

form.addEventListener("submit", (event) => { event.preventDefault(); render(); });
form.addEventListener("input", () => { complain(""); plan(); });
field("model").addEventListener("change", () => { fit(); plan(); });
field("size").addEventListener("input", () => press(""));
for (const button of form.querySelectorAll("[data-ratio]")) button.addEventListener("click", () => { shape(button.dataset.ratio); plan(); });
lock.addEventListener("click", () => {
  const locked = lock.getAttribute("aria-pressed") !== "true";
  lock.setAttribute("aria-pressed", String(locked));
  field("seed").value = locked ? field("seed").value || lock.dataset.last || "" : "";
  plan();
});
form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); } });
fit();
plan();
