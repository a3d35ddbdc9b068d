// The timeline, subscribers, conflicts and health, each as a list of what matters most, never longer than can be read.

import { el, plural, value } from "./dom.js";
import { span, when } from "./time.js";

const MOST_SUBSCRIBERS = 50;
const MOST_CONFLICTS = 20;

const empty = (text) => el("p", { class: "quiet" }, text);

// --- timeline ---

export function timeline(model, isFault) {
  if (model.stays.length === 0) return [el("li", { class: "none quiet" }, "Nothing has happened yet.")];
  const newestFirst = model.stays.toReversed();
  return newestFirst.map((stay, n) => stayed(stay, newestFirst[n - 1], isFault(stay.state)));
}

function stayed(stay, next, isFault) {
  const kinds = `${next ? "" : "lit"}${isFault ? " fault" : ""}`;
  const lasted = next && next.at > 0 && stay.at > 0 ? `stayed ${span(next.at - stay.at)}` : null;
  const facts = [
    stay.by && value(stay.by),
    stay.revision && `revision ${stay.revision}`,
    lasted,
    stay.updates > 0 && plural(stay.updates, "update"),
  ].filter(Boolean);
  return el(
    "li",
    { class: kinds },
    el("p", { class: "stay" }, el("strong", null, value(stay.state)), when(stay.at)),
    stay.reason && el("p", { class: "clamp" }, value(stay.reason)),
    stay.latest && el("p", { class: "quiet clamp" }, "then: ", value(stay.latest)),
    facts.length > 0 && el("p", { class: "quiet clamp" }, ...facts.flatMap((fact, at) => (at ? [" · ", fact] : [fact]))),
  );
}

// --- subscribers ---

const RANKS = ["evicted", "suspended", "degraded", "active"];
const KINDS = { evicted: "bad", suspended: "bad", degraded: "warn", active: "good" };

export function subscribers(all) {
  if (all.length === 0) return [empty("Nobody has registered a webhook.")];
  const worstFirst = all.toSorted((one, other) => rank(one) - rank(other) || other.lag - one.lag);
  const counts = RANKS.toReversed().map((status) => [all.filter((each) => each.status === status).length, status]);
  const summary = counts.filter(([count]) => count > 0).map(([count, status]) => `${count} ${status}`);
  const hidden = all.length - MOST_SUBSCRIBERS;
  return [
    el("p", { class: "quiet" }, summary.join(", ")),
    el("ul", { class: "rows" }, ...worstFirst.slice(0, MOST_SUBSCRIBERS).map(subscriber)),
    hidden > 0 && empty(`and ${hidden} more`),
  ];
}

const rank = ({ status }) => RANKS.indexOf(status);

function subscriber({ id, url, status, lag, failures, last_outcome, last_http_status, last_success_at, evicted }) {
  const trouble = status !== "active" && last_outcome !== null;
  const outcome = `${last_outcome}${last_http_status ? ` (${last_http_status})` : ""}`;
  return el(
    "li",
    null,
    el("p", { class: "head" }, el("strong", null, value(id)), chip(status, KINDS[status]), behind(lag, status)),
    el("p", { class: "quiet clamp url" }, value(url)),
    trouble && el("p", { class: "quiet" }, `${plural(failures, "failure")} in a row, the last one: `, value(outcome)),
    evicted && el("p", { class: "quiet" }, `evicted (${evicted.reason}) `, when(evicted.at)),
    last_success_at && el("p", { class: "quiet" }, "last delivery ", when(last_success_at)),
  );
}

const behind = (lag, status) =>
  el("span", { class: lag > 0 && status !== "evicted" ? "lag" : "quiet" }, lag > 0 ? `lag ${lag}` : "up to date");

export const chip = (text, kind) => el("span", { class: `chip ${kind ?? ""}` }, text);

// --- conflicts ---

export function conflicts(all) {
  if (all.length === 0) return [empty("No write has lost, or overwritten a state unseen, since the start.")];
  const hidden = all.length - MOST_CONFLICTS;
  return [
    el("ul", { class: "rows" }, ...all.slice(0, MOST_CONFLICTS).map(conflict)),
    hidden > 0 && empty(`and ${hidden} more`),
  ];
}

function conflict({ at, kind, reason, attempted, against }) {
  const masked = kind === "masked";
  const current = against.state === null ? ["there was no state"] : [
    value(against.state), ` (version ${against.version}) by `, value(against.source_module), " was there",
  ];
  return el(
    "li",
    null,
    el("p", { class: "head" }, el("strong", null, value(attempted.source_module)), chip(words(kind), masked ? "warn" : "bad"), when(at)),
    el("p", { class: "clamp" }, masked ? "wrote " : "tried ", value(attempted.state), ` (version ${attempted.version}): `, ...current),
    el("p", { class: "quiet clamp" }, `why: ${words(reason)}`, attempted.reason && " · ", attempted.reason && value(attempted.reason)),
  );
}

const words = (name) => name.replaceAll("_", " ");

// --- health ---

export function health({ healthy, issues, warnings, metrics }) {
  const rows = [...issues.map((text) => ["bad", "issue", text]), ...warnings.map((text) => ["warn", "warning", text])];
  const numbers = [
    plural(metrics.total_sets, "write"),
    plural(metrics.version_conflicts, "version conflict"),
    `up ${span(metrics.uptime_seconds)}`,
  ];
  return [
    el("p", null, healthy ? chip("healthy", rows.length ? "warn" : "good") : chip("unhealthy", "bad")),
    rows.length > 0 && el("ul", { class: "rows" }, ...rows.map(([kind, level, text]) =>
      el("li", null, el("p", { class: "head" }, chip(level, kind), value(text))))),
    empty(numbers.join(" · ")),
  ].filter(Boolean);
}
