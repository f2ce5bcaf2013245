// Parts of a page that move: the server sends those that changed, already as HTML of its own templates.
import { follow, say, toLogin } from "./shell.js";

/** Keep the page's parts up to date; `changed` is called with each element that was. */
export function goLive(changed = () => {}) {
  const live = document.getElementById("live");
  const word = live.querySelector(".live-word");
  const waiting = new Map(); // parts that somebody is busy in, and what they will be

  const show = (state) => {
    live.classList.toggle("is-on", state === "on");
    live.classList.toggle("is-off", state === "off");
    word.textContent = state === "on" ? "live" : "not live";
  };
  const isBusy = (part) => (part.contains(document.activeElement) && part !== document.activeElement) || part.querySelector("details[open]");

  function put(id, html) {
    const part = document.getElementById(id);
    if (!part) return;
    if (isBusy(part)) { waiting.set(id, html); return; }
    waiting.delete(id);
    part.innerHTML = html;
    changed(part);
  }

  const catchUp = () => setTimeout(() => { for (const [id, html] of [...waiting]) put(id, html); });
  document.addEventListener("focusout", catchUp);
  document.addEventListener("toggle", catchUp, true);

  const source = follow(live.dataset.events, {
    part: ({ id, html }) => put(id, html),
    trouble: (text) => { show("off"); say(text); },
    fine: () => { show("on"); say(""); },
    over: (text) => { source.close(); show("off"); say(text, toLogin()); },
  }, { onState: show, beats: true });
}
