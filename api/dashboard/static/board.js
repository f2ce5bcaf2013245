// The review board by keys: a cell has the focus, or several are ticked; every word goes to the native API, one after
// another in the order of the presses, and can be taken back.
import { call, element, zoom } from "./shell.js";
import { goLive } from "./live.js";

const root = "/dashboard";
const board = document.getElementById("board");
const inside = (cell) => cell.querySelector(".cell-body").dataset;
if (document.getElementById("live")) goLive(lead);
if (board) start();

// A new try is another job: the link of its cell follows.
function lead(part) {
  if (part.matches(".cell-link")) part.href = inside(part).job ? `${root}/jobs/${inside(part).job}` : "#";
}

function start() {
  const reviews = `/v1/campaigns/${encodeURIComponent(board.dataset.name)}/reviews`;
  const may = board.dataset.may === "yes";
  const said = document.getElementById("said");
  const done = []; // {verdict, was: [{file, was}]} of each word, the last one at the end
  let last = ""; // the word that was queued last: a second press of the same sends nothing while it is on its way
  let line = Promise.resolve();
  const unsent = new Map(); // comments that were not sent, by their files: each stands in the field again
  const cells = () => [...board.querySelectorAll(".cell-link")];
  const ticks = () => [...board.querySelectorAll('input[name="files"]:checked')];
  const link = (file) => cells().find((cell) => cell.dataset.file === file);
  let at = cells()[0];

  for (const part of document.querySelectorAll(".with-script")) part.hidden = false;
  for (const cell of cells()) cell.tabIndex = cell === at ? 0 : -1;

  function go(cell) {
    if (!cell) return;
    at.tabIndex = -1;
    at = cell;
    at.tabIndex = 0;
    at.focus({ preventScroll: true });
    at.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // Up and down stay in the column of the eye: the nearest cell of the next row.
  function vertical(step) {
    const rows = [...board.querySelectorAll("tbody tr")];
    let row = rows.indexOf(at.closest("tr")) + step;
    const middle = at.getBoundingClientRect().left + at.offsetWidth / 2;
    for (; rows[row]; row += step) {
      const near = [...rows[row].querySelectorAll(".cell-link")].map((cell) => [Math.abs(cell.getBoundingClientRect().left + cell.offsetWidth / 2 - middle), cell]).sort((a, b) => a[0] - b[0]);
      if (near.length) return go(near[0][1]);
    }
    return undefined;
  }

  const horizontal = (step) => go(cells()[cells().indexOf(at) + step]);

  function chosen() {
    const ticked = ticks().map((tick) => tick.value);
    return ticked.length ? ticked : [at.dataset.file];
  }

  // A new element each time: the same sentence twice is announced twice.
  const tell = (text) => said.replaceChildren(element("span", {}, text));
  const named = (files) => (files.length === 1 ? files[0] : `${files.length} files`);

  function judge(verdict, { comment, files = chosen() } = {}) {
    if (!may) { keep(files, comment); tell("Nothing was sent: this key may look, but not judge. Log in with one that has the scope campaigns."); return; }
    const word = JSON.stringify([verdict, comment, files]);
    if (word === last) return;
    const isMoving = !ticks().length && (verdict === "approve" || verdict === "reject");
    for (const tick of ticks()) tick.checked = false;
    if (isMoving) horizontal(1);
    last = word;
    line = line.then(() => pass(verdict, files, comment)).finally(() => { if (last === word) last = ""; });
  }

  async function pass(verdict, files, comment) {
    const was = files.map((file) => ({ file, was: inside(link(file)).verdict }));
    if (!await send({ files, verdict, comment })) { keep(files, comment); return; }
    if (verdict !== "comment") done.push({ verdict, was });
    if (verdict === "approve" || verdict === "reject") for (const file of files) mark(link(file), verdict);
    tell(`${{ approve: "Approved", reject: "Rejected", regenerate: "A new try is on its way for", comment: "Commented on" }[verdict]} ${named(files)}.`);
  }

  function keep(files, text) { if (text && !unsent.has(`${files}`)) unsent.set(`${files}`, text); }

  async function send(body) {
    try {
      await call(reviews, { method: "POST", body });
      return true;
    } catch (problem) { tell(`${named(body.files)}: ${problem.message}`); return false; }
  }

  // Shown as soon as it is taken; the stream brings the server's own words a moment later.
  function mark(cell, verdict) {
    const body = cell.querySelector(".cell-body");
    body.dataset.verdict = verdict;
    body.querySelector(".verdict")?.remove();
    const word = { approve: "approved", reject: "rejected" }[verdict];
    if (word) body.append(element("span", { class: `verdict is-${verdict}` }, word));
  }

  async function takeBack() {
    const word = done.pop();
    if (!word) { tell("There is nothing to take back."); return; }
    if (word.verdict === "regenerate") { tell("A new try cannot be taken back; judge it when it is there, or cancel its job."); return; }
    const before = new Map();
    for (const { file, was } of word.was) before.set(was, [...(before.get(was) || []), file]);
    for (const [was, files] of before) {
      const verdict = was === "approve" || was === "reject" ? was : "withdraw";
      if (!await send({ files, verdict })) { done.push(word); return; }
      for (const file of files) mark(link(file), was);
    }
    tell(`Taken back: ${named(word.was.map(({ file }) => file))}.`);
    go(link(word.was[0].file));
  }

  const undo = () => { last = ""; line = line.then(takeBack); };

  async function comment() {
    const dialog = document.getElementById("comment");
    const list = document.getElementById("comment-history");
    const text = document.getElementById("comment-text");
    const files = chosen();
    document.getElementById("comment-file").textContent = named(files);
    text.value = unsent.get(`${files}`) || "";
    unsent.delete(`${files}`);
    list.replaceChildren();
    dialog.returnValue = "";
    dialog.showModal();
    text.focus();
    dialog.onclose = () => {
      at.focus();
      const typed = text.value.trim();
      if (dialog.returnValue === "send" && typed) judge("comment", { comment: typed, files });
      else keep(files, typed);
    };
    if (files.length > 1) return;
    try {
      const told = await call(`${reviews}?file=${encodeURIComponent(files[0])}`);
      list.replaceChildren(...told.data.map((one) => element("li", {}, element("span", { class: `chip is-${one.verdict}` }, one.verdict), ` ${one.comment}`, element("time", { class: "muted small", datetime: one.createdAt }, ` ${new Date(one.createdAt).toLocaleString()}`))));
    } catch (problem) { list.replaceChildren(element("li", { role: "alert" }, problem.message)); }
  }

  function compare() {
    const files = ticks().length > 1 ? ticks().map((tick) => tick.value) : [...at.closest("td").querySelectorAll(".cell-link")].map((cell) => cell.dataset.file);
    const shown = files.length > 1 ? files : [...at.closest("tr").querySelectorAll(".cell-link")].map((cell) => cell.dataset.file);
    document.getElementById("compare-grid").replaceChildren(...shown.slice(0, 8).map((file) => {
      const cell = inside(link(file));
      const picture = cell.job ? element("img", { src: `${root}/pictures/${cell.job}/0`, alt: file }) : "";
      return element("figure", {}, picture, element("figcaption", { class: "small" }, element("strong", {}, file), element("span", { class: "muted" }, ` seed ${cell.seed} · ${cell.verdict === "none" ? "open" : cell.verdict}`)));
    }));
    document.getElementById("compare").showModal();
  }

  const moves = {
    ArrowRight: () => horizontal(1), ArrowLeft: () => horizontal(-1), ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1), Home: () => go(cells()[0]), End: () => go(cells().at(-1)),
    l: () => horizontal(1), h: () => horizontal(-1), j: () => vertical(1), k: () => vertical(-1),
  };
  const acts = {
    a: () => judge("approve"), r: () => judge("reject"), g: () => judge("regenerate"), c: comment, u: undo, v: compare,
    x: () => { const tick = at.closest(".cell").querySelector("input"); if (tick) tick.checked = !tick.checked; },
    Enter: () => (inside(at).status === "SUCCESS" ? zoom(`${root}/pictures/${inside(at).job}/0`, at.dataset.file) : false), " ": () => acts.x(),
  };
  board.addEventListener("keydown", (event) => {
    if (!event.target.closest(".cell-link") || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.repeat && key in acts) { event.preventDefault(); return; } // a key that is held judges one picture
    const act = moves[key] || acts[key];
    if (act && act() !== false) event.preventDefault();
  });
  board.addEventListener("focusin", (event) => { const cell = event.target.closest(".cell-link"); if (cell && cell !== at) { at.tabIndex = -1; at = cell; at.tabIndex = 0; } });
  board.addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest('[name="verdict"]')) { event.preventDefault(); return; } // a double click is one
    const cell = event.target.closest(".cell-link");
    if (!cell || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(cell);
    if (event.detail === 1 && inside(cell).status === "SUCCESS" && event.target.closest("img")) zoom(`${root}/pictures/${inside(cell).job}/0`, cell.dataset.file);
  });
  board.addEventListener("submit", (event) => { event.preventDefault(); judge(event.submitter.value); });
  for (const button of board.querySelectorAll("[data-do]")) button.addEventListener("click", { comment, undo, compare }[button.dataset.do]);
  document.querySelector("#compare [data-close]").addEventListener("click", () => { document.getElementById("compare").close(); at.focus(); });
}
