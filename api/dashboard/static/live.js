// Parts of a page that move: the server sends those that changed, already as HTML of its own templates.
import { follow, say, toLogin } from "./shell.js";

/** Keep the page's parts up to date; `changed` is called with each element that was. */
export function goLive(changed = () => {}) {
  const live = document.getElementById("live");
  const word = live.querySelector(".live-word");
  const show = (state) => {
    live.classList.toggle("is-on", state === "on");
    live.classList.toggle("is-off", state === "off");
    word.textContent = state === "on" ? "live" : "not live";
  };
  const source = follow(live.dataset.events, {
    part({ id, html }) {
      const part = document.getElementById(id);
      if (!part || (part.contains(document.activeElement) && part !== document.activeElement)) return;
      part.innerHTML = html;
      changed(part);
    },
    trouble(text) { say(text); },
    over(text) { source.close(); show("off"); say(text, toLogin()); },
  }, { onState: show });
}
