// The overview moves: the server sends the parts that changed, already as HTML of its own templates.
import { follow, say, toLogin } from "./shell.js";

const live = document.getElementById("live");
const word = live.querySelector(".live-word");

function show(state) {
  live.classList.toggle("is-on", state === "on");
  live.classList.toggle("is-off", state === "off");
  word.textContent = state === "on" ? "live" : "not live";
}

const source = follow(live.dataset.events, {
  part({ id, html }) {
    const part = document.getElementById(id);
    if (part && !part.contains(document.activeElement)) part.innerHTML = html;
  },
  trouble(text) { say(text); },
  over(text) { source.close(); show("off"); say(text, toLogin()); },
}, { onState: show });
