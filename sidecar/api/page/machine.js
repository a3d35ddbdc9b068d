// The machine: drawn while it is small enough to be read, listed when it is not.

import { el, svg, value, visible } from "./dom.js";
import { arrow, HEIGHT, placed } from "./layout.js";

const MOST_DRAWN = 12;

const pen = document.createElement("canvas").getContext("2d");

/** `now`: the current state or null; `moves`: the transitions seen lately, as `[from, to]`, the newest last. */
export function drawn(machine, now, moves, width) {
  const small = machine.states.length <= MOST_DRAWN;
  return small ? diagram(machine, now, moves, width) : list(machine, now);
}

/** Where the agent may go, in words. */
export function next(machine, now) {
  if (machine.transitions === null) return ["Every move is allowed."];
  if (now === null) return ["Any state may be the first."];
  const rule = { enforce: "", warn: " Other moves are accepted and counted.", off: " Other moves are accepted." };
  const allowed = machine.transitions[now] ?? [];
  if (allowed.length === 0) return ["No way out of here.", rule[machine.enforcement]];
  return ["May go to ", ...allowed.flatMap((state, n) => [n ? ", " : "", value(state)]), ".", rule[machine.enforcement]];
}

function diagram(machine, now, moves, width) {
  const size = width < 400 ? 11.5 : 13;
  pen.font = getComputedStyle(document.body).font.replace(/^[\d.]+px/, `600 ${size}px`);
  const { height, places } = placed(machine.states, (state) => pen.measureText(state).width + 24, width);
  const image = svg(
    "svg",
    { role: "img", viewBox: `0 0 ${width} ${height}`, width, height, "font-size": size, "aria-label": inWords(machine, now) },
    svg("defs", null, ...["far", "open", "taken"].map(head)),
  );
  for (const [kind, from, to] of edges(machine, now, moves)) {
    if (!places.has(from) || !places.has(to) || from === to) continue;
    const path = arrow(places.get(from), places.get(to), width / 2);
    image.append(svg("path", { class: `edge ${kind}`, d: path, "marker-end": `url(#head-${kind})` }));
  }
  for (const [state, place] of places) image.append(node(machine, state, place, state === now));
  return image;
}

/** Each edge once, with its kind; the faint ones first, so that the others lie above. */
function edges(machine, now, moves) {
  const kinds = new Map();
  const set = (kind, from, to) => kinds.set(JSON.stringify([from, to]), [kind, from, to]);
  const listed = machine.transitions === null ? [] : Object.entries(machine.transitions);
  for (const [from, targets] of listed) targets.forEach((to) => set(from === now ? "open" : "far", from, to));
  if (machine.transitions === null) moves.forEach(([from, to]) => set("far", from, to));
  const last = moves.at(-1);
  if (last && last[1] === now) set("taken", ...last);
  const order = ["far", "open", "taken"];
  return [...kinds.values()].sort((one, other) => order.indexOf(one[0]) - order.indexOf(other[0]));
}

function node(machine, state, { x, y, w }, lit) {
  const kind = `node${lit ? " lit" : ""}${machine.fault_states.includes(state) ? " fault" : ""}`;
  const box = { x: x - w / 2, y: y - HEIGHT / 2, width: w, height: HEIGHT, rx: HEIGHT / 2 };
  const name = svg("text", { x, y: y + 4.5, "text-anchor": "middle" }, shortened(state, w - 16));
  return svg("g", { class: kind }, svg("title", null, state), svg("rect", box), name);
}

function shortened(text, width) {
  if (pen.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return `${text.slice(0, length)}…`;
}

const head = (kind) =>
  svg(
    "marker",
    { id: `head-${kind}`, class: `head ${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
      orient: "auto", markerUnits: "userSpaceOnUse" },
    svg("path", { d: "M0 0.8 L7.5 4 L0 7.2 Z" }),
  );

function inWords(machine, now) {
  const where = now === null ? "no state yet" : `now in ${now}`;
  return visible(`A machine of ${machine.states.length} states, ${where}.`);
}

/** The list that is shown, and where its reader is; null: it is drawn. */
export function listed() {
  const list = document.querySelector(".states");
  return list && { list, top: list.scrollTop, focused: list === document.activeElement };
}

/** A new list begins where its reader was, and shows the current state. */
export function settle(before) {
  const list = document.querySelector(".states");
  if (!list || list === before?.list) return;
  list.scrollTop = before?.top ?? 0;
  if (before?.focused) list.focus({ preventScroll: true });
  const lit = list.querySelector(".lit")?.getBoundingClientRect();
  const seen = list.getBoundingClientRect();
  if (lit && (lit.top < seen.top || lit.bottom > seen.bottom)) {
    list.scrollTop += (lit.top + lit.bottom - seen.top - seen.bottom) / 2;
  }
}

function list(machine, now) {
  const allowed = (now !== null && machine.transitions?.[now]) || [];
  const chips = machine.states.map((state) => {
    const kind = state === now ? " lit" : allowed.includes(state) ? " open" : "";
    const fault = machine.fault_states.includes(state) ? " fault" : "";
    return el("li", { class: `state-chip${kind}${fault}`, "aria-current": state === now && "true" }, value(state));
  });
  return el("ul", { class: "states", tabindex: 0, "aria-label": inWords(machine, now) }, ...chips);
}
