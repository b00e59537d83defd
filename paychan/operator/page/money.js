/** Money: what is unsettled, when it is at risk, what became of it. */

import { bars, columns } from "./charts.js";
import { h } from "./dom.js";
import { count, grouped, limit, sat, span, time } from "./show.js";

export async function show(app) {
  const content = await app.ask("money");
  const limits = app.status?.exposure ?? {};
  return [
    h("h1", {}, "Money"),
    tiles(content, limits),
    h("div", { class: "grid" }, risk(content), phases(content)),
    days(content),
    age(content),
  ];
}

function tiles(content, limits) {
  const sum = (name) => content.days.reduce((total, day) => total + day[name], 0);
  const tile = (name, value, more = "") =>
    h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, more)));
  const of = (value) => (limit(value) === "no limit" ? "no limit is set" : `of at most ${limit(value)}`);
  const lost = sum("lost_satoshi");
  return h(
    "dl",
    { class: "tiles" },
    tile("unsettled", sat(content.unsettled_satoshi), of(limits.unsettled_value_max_satoshi)),
    tile("of it on open channels", sat(content.open_satoshi), of(limits.total_value_max_satoshi)),
    tile(`settled in ${count(content.days.length, "day")}`, sat(sum("settled_satoshi")), `fees took ${sat(sum("fees_satoshi"))}`),
    tile("lost", sat(lost), lost ? "see the days below, and the log" : "nothing is missing"),
  );
}

function risk(content) {
  const now = Date.now() / 1000;
  const rows = content.at_risk.map((row, at) => ({
    name: row.until_at === null ? "later" : `within ${span(row.until_at - now)}`,
    value: row.satoshi,
    text: row.channels ? `${sat(row.satoshi)} on ${count(row.channels, "channel")}` : "nothing",
    level: row.satoshi === 0 ? "none" : at < 2 ? "urgent" : at < 5 ? "warn" : "calm",
  }));
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "At risk, by expiry"),
    h("p", { class: "quiet" }, "After its expiry a payer can take a channel’s money back. Each bar without those above it."),
    bars("Unsettled value by expiry", rows),
  );
}

function phases(content) {
  const rows = Object.entries(content.by_phase).map(([name, row]) =>
    h(
      "tr",
      { "data-key": name },
      h("th", { scope: "row" }, h("a", { href: `#/channels/phase/${name}` }, name)),
      h("td", { class: "number" }, grouped(row.channels)),
      h("td", { class: "number" }, sat(row.received_satoshi)),
    ),
  );
  const head = h("tr", {}, h("th", { scope: "col" }, "phase"), h("th", { scope: "col", class: "number" }, "channels"), h("th", { scope: "col", class: "number" }, "received"));
  return h("section", { class: "card" }, h("h2", {}, "By phase"), h("table", {}, h("thead", {}, head), h("tbody", {}, rows)));
}

function days(content) {
  const shown = content.days;
  const hasAny = shown.some((day) => day.settled || day.lost || day.opened);
  const card = (...inside) =>
    h("section", { class: "card" }, h("h2", {}, "Revenue by day"), h("p", { class: "quiet" }, "What was received on the channels whose settlement was buried on a day (UTC): what arrived, what fees took, what is missing."), inside);
  if (!hasAny) return card(h("p", { class: "empty" }, "Nothing yet. A day stands here once a channel was opened or settled on it."));
  const recent = shown.slice(-30);
  const rows = recent.map((day) => ({
    name: day.day.slice(5),
    parts: [day.settled_satoshi, day.fees_satoshi, day.lost_satoshi],
    title: `${day.day}: ${sat(day.settled_satoshi)} arrived, fees ${sat(day.fees_satoshi)}, lost ${sat(day.lost_satoshi)}`,
  }));
  const lines = [...shown]
    .reverse()
    .filter((day) => day.opened || day.settled || day.lost)
    .map((day) =>
      h(
        "tr",
        { "data-key": day.day },
        h("th", { scope: "row", "data-label": "day" }, day.day),
        ...[
          ["opened", grouped(day.opened)],
          ["settled", grouped(day.settled)],
          ["arrived", sat(day.settled_satoshi)],
          ["fees", sat(day.fees_satoshi)],
          ["lost", sat(day.lost_satoshi)],
        ].map(([name, value]) => h("td", { class: "number", "data-label": name }, value)),
      ),
    );
  const heads = ["day", "opened", "settled", "arrived", "fees", "lost"];
  const label = `Revenue of the last ${recent.length} days; the table below has the numbers`;
  return card(
    columns(label, rows, ["arrived", "fees", "lost"]),
    h(
      "details",
      {},
      h("summary", {}, "The numbers"),
      h("table", { class: "stacked" }, h("thead", {}, h("tr", {}, heads.map((name, at) => h("th", { scope: "col", class: at ? "number" : null }, name)))), h("tbody", {}, lines)),
    ),
  );
}

/** Say how old what is shown may be. */
export function age(content) {
  if (!content.is_complete) return h("p", { class: "quiet" }, "Channels are being read for the first time: these are not all.");
  return h("p", { class: "quiet" }, "Channels as they were read ", time(content.as_of_at, true), " or later.");
}
