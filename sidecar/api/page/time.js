// Points in time as "3 min ago", kept true every second.

import { el } from "./dom.js";

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const SKEW_SECONDS = 5;
const OLD_SECONDS = 30 * 86400;

/** Seconds as the largest two units: `2 h 5 min`. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const first = UNITS.findIndex(([size]) => whole >= size);
  if (first < 0) return "less than 1 s";
  const [size, unit] = UNITS[first];
  const rest = UNITS[first + 1] && Math.floor((whole % size) / UNITS[first + 1][0]);
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${UNITS[first + 1][1]}` : ""}`;
}

/** When it was, in seconds since the Unix epoch, as an element that stays true. `form`: `ago` or `for`. */
export function when(at, form = "ago") {
  if (!(at > 0)) return el("span", null, "at an unknown time");
  const date = new Date(at * 1000);
  return told(el("time", { datetime: date.toISOString(), title: date.toLocaleString(), "data-at": at, "data-form": form }));
}

function told(time) {
  const at = Number(time.dataset.at);
  const seconds = Date.now() / 1000 - at;
  let text = `${span(seconds)} ago`;
  if (time.dataset.form === "for") text = `for ${span(seconds)}`;
  if (seconds < 1 && time.dataset.form === "ago") text = "now";
  if (seconds < -SKEW_SECONDS || seconds > OLD_SECONDS) text = `since ${new Date(at * 1000).toLocaleString()}`;
  if (time.dataset.form === "ago") text = text.replace("since ", "");
  if (time.textContent !== text) time.textContent = text;
  return time;
}

setInterval(() => document.querySelectorAll("time[data-at]").forEach(told), 1000);
