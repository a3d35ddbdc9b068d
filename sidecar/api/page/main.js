// Puts it together: follows the state, looks at the rest every two seconds, and shows what has changed once per frame.

import { get, hasToken, isToken, keepToken, Refused } from "./api.js";
import { byId, visible } from "./dom.js";
import { follow } from "./live.js";
import { conflicts, health, subscribers, timeline } from "./lists.js";
import { drawn, listed, next, settle } from "./machine.js";
import { Model } from "./model.js";
import { about, document_, headline } from "./now.js";

const LOOK_MS = 2_000;
const REVISIONS = 50;
const CATCH_UP_MS = 500;

const model = new Model();
let machine = null;
let epoch = null;

// --- what is read ---

async function load() {
  const [found, history] = await Promise.all([get("v1/machine"), get(`v1/history?newest=${REVISIONS}`)]);
  machine = found;
  epoch = history.epoch;
  model.load(history);
  byId("page").hidden = false;
  byId("access").hidden = true;
  show();
  void look();
}

async function more() {
  const found = await get(`v1/history?after=${model.folded}&limit=${REVISIONS}`);
  if (found.epoch === epoch) found.entries.forEach(arrive);
  else await load();
}

let catchingUp = false;

/** Read what was passed over: one reading at a time, however fast states arrive. */
async function catchUp() {
  if (catchingUp) return;
  catchingUp = true;
  while (model.behind) {
    await new Promise((done) => setTimeout(done, CATCH_UP_MS));
    await load().catch(() => {}); // the connection is looked after elsewhere
  }
  catchingUp = false;
}

function arrive(entry) {
  if (!model.arrive(entry)) return;
  epoch = entry.epoch;
  if (model.behind) void catchUp();
  show();
}

const PANELS = [
  ["subscribers", "v1/subscribers", (answer) => subscribers(answer.subscribers)],
  ["conflicts", "v1/conflicts", (answer) => conflicts(answer.conflicts)],
  ["health", "v1/health", health],
];

/** Whether anything was answered. */
async function look() {
  const looks = PANELS.map(async ([name, path, view]) => fill(`${name}-body`, view(await get(path))));
  const ends = await Promise.allSettled(looks);
  return ends.some((each) => each.status === "fulfilled" || each.reason instanceof Refused);
}

const follows = () => status === "live" || status === "polling";
let looking = false;

/** A stream that is open says little of a sidecar that answers nothing else: it is followed anew. */
async function lookAgain() {
  if (looking || !follows()) return;
  looking = true;
  const answered = await look();
  looking = false;
  if (answered || !follows()) return;
  tell("reconnecting");
  start();
}

// --- what is shown ---

const shown = new Map();

/** Puts the elements there, unless they say what is there already: a selection and a reader's place survive. */
function fill(id, elements) {
  const kept = elements.filter(Boolean);
  const said = kept.map((each) => each.outerHTML ?? each).join("").replace(/(<time[^>]*>)[^<]*/g, "$1");
  if (shown.get(id) === said) return;
  shown.set(id, said);
  byId(id).replaceChildren(...kept.map((each) => (each instanceof Node ? each : visible(each))));
}

let asked = false;

function show() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (machine) paint();
  });
}

function paint() {
  const isFault = (state) => machine.fault_states.includes(state);
  const now = model.current?.snapshot.state ?? null;
  byId("agent").textContent = visible(machine.agent);
  byId("machine-name").textContent = visible(machine.name);
  fill("state", headline(model.current, isFault(now)));
  fill("about", about(model, epoch));
  const before = listed();
  fill("machine-body", [drawn(machine, now, moves(), byId("machine-body").clientWidth)]);
  settle(before);
  fill("machine-next", next(machine, now));
  fill("timeline-body", timeline(model, isFault));
  fill("document-body", [document_(model.current)]);
  document.title = `${now === null ? "no state" : visible(now)} · ${visible(machine.agent)}`;
  byId("icon").href = icon(now === null ? "#8a93a0" : isFault(now) ? "#d3302f" : "#1f6feb");
}

const moves = () => model.stays.filter((stay) => stay.from !== null).map((stay) => [stay.from, stay.state]);

const icon = (colour) =>
  `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`)}`;

// --- how it goes ---

const TEXTS = {
  live: "live",
  polling: "live by polling",
  reconnecting: "reconnecting",
  stopping: "the sidecar is stopping",
  paused: "paused",
  locked: "a token is needed",
};

let status = "connecting";

function tell(kind, error) {
  if (kind === "locked") askForToken(error);
  if (status === kind) return;
  status = kind;
  const place = byId("connection");
  place.textContent = TEXTS[kind];
  place.dataset.status = kind;
  document.body.classList.toggle("stale", !["live", "polling"].includes(kind));
}

function askForToken(error) {
  byId("page").hidden = true;
  byId("access").hidden = false;
  const refused = error.status === 403 ? "This token may not read the state: it lacks the scope state:read." : "This token is not known.";
  byId("access-why").textContent = hasToken() ? refused : "";
  byId("token").focus();
}

byId("access").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  byId("token").value = "";
  if (!isToken(token)) {
    byId("access-why").textContent = "This has characters that no token has: copy it again.";
    return;
  }
  keepToken(token);
  start();
});

let following = new AbortController();

function start() {
  following.abort();
  following = new AbortController();
  void follow({ begin: load, more, arrive, tell, signal: following.signal });
}

// Nobody looks at a hidden page: it gives its connection back, of which a browser has six for all its tabs.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return start();
  following.abort();
  if (status !== "locked") tell("paused");
});

setInterval(lookAgain, LOOK_MS);

new ResizeObserver(show).observe(byId("machine-body"));

start();
