/** Numbers and times as people read them. */

import { h } from "./dom.js";

const THIN = "\u202f";
const OF_DAY = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** Return a whole number with thin spaces between its thousands. */
export function grouped(value) {
  const [whole, part] = String(value).split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
  return part ? `${spaced}.${part}` : spaced;
}

/** Return an amount, "…" while it is not known. */
export function sat(value) {
  return value === null || value === undefined ? "…" : `${grouped(value)}${"\u00a0"}sat`;
}

export const MONEY_MAX = 2_100_000_000_000_000;

/** Return a limit: what no amount can exceed is none. */
export const limit = (value) => (value === null || value === undefined || value >= MONEY_MAX ? "no limit" : sat(value));

/** Return a short amount for a picture's axis: 1.2 M. */
export function brief(value) {
  for (const [unit, name] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ])
    if (value >= unit) return `${round(value / unit)}${THIN}${name}`;
  return String(round(value));
}

const round = (value) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(2)));

/** Return a rate: digits as many as it deserves. */
export const rate = (value) => (value >= 100 ? grouped(Math.round(value)) : grouped(Number(value.toFixed(value >= 10 ? 0 : 1))));

/** Return a duration in seconds as milliseconds or seconds. */
export function seconds(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value < 1) return `${Number((value * 1000).toPrecision(2))}${"\u00a0"}ms`;
  return `${Number(value.toPrecision(2))}${"\u00a0"}s`;
}

/** Return a long duration: 3 h, 2 d. */
export function span(value) {
  const size = Math.abs(value);
  if (size < 90) return `${Math.round(size)} s`;
  if (size < 3500) return `${Math.round(size / 60)} min`;
  if (size < 2 * 86400) return `${Math.round(size / 3600)} h`;
  return `${Math.round(size / 86400)} d`;
}

/** Return an element for a time in unix seconds: in the reader's zone, UTC on hover. */
export function time(at, isRelative = false) {
  if (!at) return "–";
  const date = new Date(at * 1000);
  const iso = date.toISOString();
  const utc = `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;
  const ahead = at - Date.now() / 1000;
  const text = isRelative ? (ahead >= 0 ? `in ${span(ahead)}` : `${span(ahead)} ago`) : WHOLE.format(date);
  return h("time", { datetime: iso, title: isRelative ? `${WHOLE.format(date)}, ${utc}` : utc }, text);
}

export const clock = (milliseconds) => OF_DAY.format(new Date(milliseconds));

export const count = (number, one, many = `${one}s`) => `${grouped(number)} ${number === 1 ? one : many}`;

/** Return a link to a channel's view; the outpoint is cut in the middle for the eye, and whole for ears and hover. */
export function channelLink(outpoint) {
  const [txid, vout] = outpoint.split("/");
  const short = `${txid.slice(0, 8)}…${txid.slice(-4)}/${vout}`;
  return h("a", { href: `#/channels/${outpoint}`, title: outpoint, "aria-label": `Channel ${outpoint}`, class: "mono" }, short);
}

const PHASES = { open: "open", closing: "closing", signed: "signed", broadcast: "broadcast", settled: "settled" };

export function phase(name, isLost) {
  return isLost ? h("span", { class: "tag bad" }, "lost") : h("span", { class: `tag ${PHASES[name] ?? ""}` }, name);
}
