// Forms: each is sent once, and what was typed outlives a session that ended meanwhile.
import { here, say, toLogin } from "./shell.js";

const KEPT = "fluxfarm-form";
const TWICE = 4_000; // milliseconds in which a second click makes no second thing

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "yes";
  setTimeout(() => delete form.dataset.sent, TWICE);
  keep(form);
});

// A page that the browser has kept comes back as it was left.
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

function keep(form) {
  const fields = [...new FormData(form)].filter(([, value]) => typeof value === "string");
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ page: here(), action: form.getAttribute("action"), fields }));
  } catch { sessionStorage.removeItem(KEPT); } // more than the browser keeps
}

function fill(form, fields) {
  for (const input of form.elements) {
    if (!input.name || input.type === "file") continue;
    const values = fields.filter(([name]) => name === input.name).map(([, value]) => value);
    if (input.type === "checkbox" || input.type === "radio") input.checked = values.includes(input.value);
    else if (values.length && input.type !== "submit") [input.value] = values;
  }
  const folded = form.closest("details");
  if (folded) folded.open = true;
  form.dispatchEvent(new Event("input"));
}

const kept = JSON.parse(sessionStorage.getItem(KEPT) || "null");
const over = document.getElementById("over");
if (over && kept) {
  over.href = toLogin(kept.page)[0];
  document.getElementById("over-kept").hidden = false;
  sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, isLost: true }));
} else if (kept) {
  sessionStorage.removeItem(KEPT);
  const form = [...document.forms].find((one) => one.getAttribute("action") === kept.action);
  if (kept.isLost && form && kept.page === here()) {
    fill(form, kept.fields);
    say("What you typed is here again; look it over and send it once more.");
  }
}
