// What every page needs: a word to the visitor, calls of the native API by the session, streams that come back.

const root = "/dashboard";
const AGAIN = 5_000; // milliseconds until a stream that was refused is asked for again
const SILENCE = 45_000; // milliseconds without a word; a stream that beats says one every 15 s
const CUT = "The line to the farm is cut; this page goes on by itself when it is back.";

/** Say something at the top of the page; `link` is [address, word]. Empty: say nothing any more. */
export function say(text, link) {
  const notice = document.getElementById("notice");
  if (!notice) return;
  notice.replaceChildren(text);
  if (link) {
    const anchor = document.createElement("a");
    [anchor.href, anchor.textContent] = link;
    notice.append(" ", anchor);
  }
  notice.hidden = !text;
}

/** Where this page stands: one that answers a form has another address than its own. */
export const here = () => document.body.dataset.page || location.pathname + location.search;

export const toLogin = (page = here()) => [`${root}/login?next=${encodeURIComponent(page.slice(root.length))}`, "Log in"];

/** An error of the farm, with its sentence and its code. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || "The farm did not answer as expected; try again.");
    this.status = status;
    this.code = problem.code;
    this.problem = problem;
  }
}

/** Call the native API with the session's key; gives the JSON of its reply. */
export async function call(path, { method = "GET", body, text, form, headers = {} } = {}) {
  const options = { method, headers: { ...headers } };
  if (form) options.body = form;
  else if (body !== undefined || text !== undefined) {
    options.body = text ?? JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let reply;
  try {
    reply = await fetch(root + path, options);
  } catch {
    throw new Refused(0, { detail: "The farm cannot be reached. Nothing is lost: try again in a moment.", code: "unreachable" });
  }
  if (reply.status === 204) return null;
  const told = await reply.json().catch(() => ({}));
  if (!reply.ok) {
    if (reply.status === 401) say("The session is over; what you typed stays here.", toLogin());
    throw new Refused(reply.status, told);
  }
  return told;
}

/**
 * Follow a stream; it comes back by itself, and says so while it is away. After SILENCE it is opened anew; one that
 * `beats` counts as dead by then, as it says a word of its own in time. Gives what `close`s it.
 */
export function follow(address, handlers, { onState = () => {}, beats = false } = {}) {
  const over = new AbortController();
  let source = null;
  let isAway = false;
  let timer = 0; // of the next try, or of a line that says nothing

  function away(text, link) { isAway = true; onState("off"); say(text, link); }
  function heard() { clearTimeout(timer); timer = setTimeout(silent, SILENCE); }
  function silent() { if (beats || source.readyState !== EventSource.OPEN) away(CUT); open(); }

  function open() {
    source?.close();
    source = new EventSource(address);
    heard(); // a line that never opens is dead, too
    source.onopen = () => { heard(); onState("on"); if (isAway) say(""); isAway = false; };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) { away(CUT); return; }
      clearTimeout(timer);
      timer = setTimeout(open, AGAIN);
      away(`The farm refused live updates; this page asks again in ${AGAIN / 1000} seconds. If the session is over:`, toLogin());
    };
    source.addEventListener("alive", heard);
    for (const [name, handle] of Object.entries(handlers)) source.addEventListener(name, (event) => { heard(); handle(JSON.parse(event.data)); });
  }

  // A farm on this machine is there without any network: trying tells.
  for (const turn of ["offline", "online"]) addEventListener(turn, open, { signal: over.signal });
  open();
  return { close() { over.abort(); clearTimeout(timer); source.close(); } };
}

export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

/** A picture at full size, closed by a click or Escape. */
export function zoom(address, alt) {
  const view = document.getElementById("zoom");
  if (!view) return;
  const picture = view.querySelector("img");
  picture.src = address;
  picture.alt = alt;
  view.showModal();
}

document.getElementById("zoom")?.addEventListener("click", (event) => event.currentTarget.close());
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.zoom");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  zoom(link.href, link.querySelector("img")?.alt || "");
});
