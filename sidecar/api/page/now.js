// The current state, large, and what is known about it.

import { el, value } from "./dom.js";
import { when } from "./time.js";

const MOST_CHARACTERS = 20_000;

/** What is read out when it changes: the name and the reason. */
export function headline(current, isFault) {
  if (!current) {
    return [
      el("p", { class: "name none" }, "No state yet"),
      el("p", { class: "reason" }, "The first write will show here."),
    ];
  }
  const { state, reason } = current.snapshot;
  return [
    el("p", { class: `name${isFault ? " fault" : ""}` }, value(state), isFault && el("span", { class: "unseen" }, " (a fault)")),
    reason && el("p", { class: "reason clamp" }, value(reason)),
  ];
}

export function about(model, epoch) {
  if (!model.current) return [facts([["epoch", epoch], ["revision", 0]])];
  const { revision, snapshot } = model.current;
  const stay = model.stays.at(-1);
  const line = el(
    "p",
    { class: "quiet clamp" },
    when(stay && !model.behind ? stay.at : snapshot.ts_wall, "for"),
    snapshot.prev_state !== null && " · from ",
    snapshot.prev_state !== null && value(snapshot.prev_state),
    " · written by ",
    value(snapshot.source_module),
    " ",
    when(snapshot.ts_wall),
  );
  return [line, facts([["version", snapshot.version], ["revision", revision], ["epoch", epoch]])];
}

const facts = (pairs) =>
  el("dl", { class: "facts" }, ...pairs.map(([name, told]) => el("div", null, el("dt", null, name), el("dd", null, value(told)))));

/** The whole snapshot as text, unless it is very long. */
export function document_(current) {
  if (!current) return "—";
  const { history, ...rest } = current.snapshot;
  const text = JSON.stringify(rest, null, 2);
  const more = text.length - MOST_CHARACTERS;
  return more > 0 ? `${text.slice(0, MOST_CHARACTERS)}\n… and ${more} more characters` : text;
}
