// A wall of any length: rows of equal width laid out from the sizes alone, and only those near the screen are elements.
import { element, say, toLogin } from "./shell.js";

const wall = document.getElementById("wall");
const GAP = 6;
const NEAR = 1200; // pixels above and below the screen that are kept
const AT_ONCE = 3; // rows that one frame makes; the next frames make the others
const FLIGHT = 0.1; // of the screen's height in one frame: who moves on faster sees no picture, and none is asked for
const REST = 90; // milliseconds after such a frame, until they are if the next frame is none
const OPEN = 6; // pictures that are asked for at once, the nearest first: more would wait at the farm, and hold it

if (wall) start();

function start() {
  const pictures = []; // {id, w, h, p}
  let rows = []; // {top, height, first, last, widths}
  const drawn = new Map(); // number of a row: its element
  let following = wall.dataset.more;
  let loading = false;
  let width = 0;
  let asked = false; // for the next frame
  let open = 0; // pictures on their way
  let middle = 0; // of the screen, from the top of the wall
  let flight = 0; // the timer that ends it

  const target = () => (wall.clientWidth < 600 ? 132 : wall.clientWidth > 2600 ? 340 : wall.clientWidth > 1800 ? 260 : 200);

  // Each row takes pictures until they would be lower than the target when stretched to the whole width.
  function lay(from) {
    let top = rows.length ? rows.at(-1).top + rows.at(-1).height + GAP : 0;
    let first = from;
    let sum = 0;
    for (let at = from; at < pictures.length; at += 1) {
      sum += ratio(pictures[at]);
      const inner = width - GAP * (at - first);
      if (inner / sum > target() && !(at === pictures.length - 1 && !following)) continue;
      const height = Math.min(inner / sum, target() * 1.3);
      rows.push({ top, height, first, last: at });
      top += height + GAP;
      first = at + 1;
      sum = 0;
    }
    wall.style.height = `${Math.max(0, top - GAP)}px`;
  }

  const ratio = (one) => Math.min(4, Math.max(0.3, one.w / one.h));

  function draw() {
    const begin = -wall.getBoundingClientRect().top - NEAR;
    const end = begin + innerHeight + 2 * NEAR;
    let low = 0;
    let high = rows.length;
    while (low < high) { const half = (low + high) >> 1; if (rows[half].top + rows[half].height < begin) low = half + 1; else high = half; }
    const wanted = new Set();
    for (let at = low; at < rows.length && rows[at].top < end; at += 1) wanted.add(at);
    for (const [at, made] of drawn) if (!wanted.has(at) && !made.contains(document.activeElement)) { made.remove(); drawn.delete(at); }
    const centre = begin + NEAR + innerHeight / 2;
    if (Math.abs(centre - middle) > FLIGHT * innerHeight) { clearTimeout(flight); flight = setTimeout(() => { flight = 0; soon(); }, REST); }
    middle = centre;
    const missing = [...wanted].filter((at) => !drawn.has(at)).sort((a, b) => Math.abs(rows[a].top - middle) - Math.abs(rows[b].top - middle));
    for (const at of missing.slice(0, AT_ONCE)) { const made = row(rows[at]); drawn.set(at, made); wall.append(made); }
    if (missing.length > AT_ONCE) soon();
    ask();
    if (following && (!rows.length || rows.at(-1).top < end + 3000)) load();
  }

  function row({ top, height, first, last }) {
    const made = element("div", { class: "wall-row" });
    made.style.transform = `translateY(${top}px)`;
    made.style.height = `${height}px`;
    for (const one of pictures.slice(first, last + 1)) {
      const picture = element("img", { "data-src": `${wall.dataset.root}/thumbnails/${one.id}`, alt: one.p, decoding: "async" });
      const link = element("a", { href: `${wall.dataset.root}/jobs/${one.id.split("/")[0]}`, title: one.p }, picture);
      link.style.width = `${ratio(one) * height}px`;
      made.append(link);
    }
    return made;
  }

  function ask() {
    if (flight || open >= OPEN) return;
    const near = [...drawn.keys()].sort((a, b) => Math.abs(rows[a].top - middle) - Math.abs(rows[b].top - middle));
    for (const at of near) {
      for (const picture of drawn.get(at).querySelectorAll("[data-src]")) {
        if (open >= OPEN) return;
        open += 1;
        for (const end of ["load", "error"]) picture.addEventListener(end, () => { open -= 1; ask(); }, { once: true });
        picture.src = picture.dataset.src;
        delete picture.dataset.src;
      }
    }
  }

  function again() {
    for (const made of drawn.values()) made.remove();
    drawn.clear();
    rows = [];
    width = wall.clientWidth;
    lay(0);
    draw();
  }

  async function load() {
    if (loading || !following) return;
    loading = true;
    try {
      const reply = await fetch(following, { redirect: "manual" });
      if (!reply.ok) throw new Error(String(reply.status));
      const told = await reply.json();
      if (!pictures.length) { wall.replaceChildren(); wall.classList.add("is-laid"); document.getElementById("wall-pager").hidden = true; }
      pictures.push(...told.data);
      const more = new URL(wall.dataset.more, location.href);
      if (told.next) more.searchParams.set("cursor", told.next);
      following = told.next ? more.pathname + more.search : null;
      // the last row may have been short: it is laid anew with what follows
      const from = rows.length ? rows.pop().first : 0;
      const stale = drawn.get(rows.length);
      if (stale) { stale.remove(); drawn.delete(rows.length); }
      if (!width) width = wall.clientWidth;
      lay(from);
      document.getElementById("wall-count").textContent = `${pictures.length.toLocaleString("en")}${following ? "+" : ""} pictures`;
      say("");
    } catch {
      say("More pictures could not be loaded. Scroll again in a moment, or log in if the session is over.", toLogin());
      await new Promise((wait) => { setTimeout(wait, 3000); });
    } finally { loading = false; }
    draw();
  }

  function soon() { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); }); } }
  addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(() => { if (pictures.length && wall.clientWidth !== width) again(); }).observe(wall);
  load();
}
