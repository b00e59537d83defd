/** The machines that share the channels, and this one's limits. */

import { question } from "./dialog.js";
import { h } from "./dom.js";
import { count, grouped, limit, sat, span, time } from "./show.js";

const NAMES = {
  channel_value_max_satoshi: "received on one channel, at most",
  total_value_max_satoshi: "received on all open channels, at most",
  unsettled_value_max_satoshi: "unsettled in all, at most",
  funding_value_max_satoshi: "a channel’s funding, at most",
  funding_tx_min_conf: "confirmations of a funding, at least",
  duration_hours_max: "hours until a new channel’s expiry, at most",
};

const shownLimit = (key, value) => (value === null || key.endsWith("_satoshi") ? limit(value) : grouped(value));

export async function show(app) {
  const [content, limits] = await Promise.all([app.ask("cluster"), app.ask("limits").catch(() => null)]);
  const stores = content.stores.length
    ? h("ul", { class: "plain grid" }, content.stores.map((one) => storeCard(content, one)))
    : h("p", { class: "warn strip" }, "The store does not answer: what other machines do is not known.");
  const alone = content.stores.length < 2 && !content.is_cluster && h("p", { class: "quiet" }, "There is one machine. With [cluster] in server.toml others can share its channels.");
  const asOf = content.stores.length > 1 && h("p", { class: "quiet" }, "As this machine’s store saw the others ", time(content.looked_at, true), ". Each machine’s own page tells more of its workers.");
  const database = content.database
    ? h("section", { class: "card" }, h("h2", {}, "Database"), h("p", {}, `PostgreSQL, ${content.database.name} at ${content.database.hosts.join(", ")}. paychan-store postgres look tells of its standbys.`))
    : null;
  return [h("h1", {}, "Cluster"), stores, alone, asOf, database, limits && limitsCard(app, limits)];
}

const LIVES = { alive: ["open", "alive"], silent: ["bad", "silent"], unknown: ["", "not heard yet"] };
const LEASES = { settler: "starts settlements", chain_watcher: "watches the chain" };

/** A machine: its store, and which shards its workers serve. */
function storeCard(content, one) {
  const [kind, life] = one.is_this ? [content.ready.is_ready ? "open" : "bad", content.ready.is_ready ? "ready" : "not ready"] : LIVES[one.life];
  const isShared = new Set(one.workers.map((each) => each.machine)).size > 1;
  const row = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const worker = (each) =>
    h(
      "tr",
      { "data-key": each.number },
      h("th", { scope: "row", "data-label": "worker" }, `${each.number}`),
      h("td", { "data-label": "machine" }, each.machine || "–"),
      h("td", { "data-label": "shards" }, each.shards.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ") || "none"),
    );
  const heads = ["worker", "machine", "shards"].map((name) => h("th", { scope: "col" }, name));
  return h(
    "li",
    { class: "card", "data-key": one.name },
    h("h2", {}, one.name || (isShared ? "All machines" : content.machine || "This machine"), " ", h("span", { class: `tag ${kind}` }, life)),
    h(
      "dl",
      { class: "facts" },
      row("shards", `${grouped(one.shards)} of ${grouped(content.shards.total)}${one.unserved_shards ? `, ${grouped(one.unserved_shards)} served by nobody` : ""}`),
      one.leases.length > 0 && row("also", one.leases.map((name) => LEASES[name]).join(", ")),
      row("received on open channels, its part", sat(one.open_value_satoshi)),
      one.name && row("last write", one.is_this ? "this machine answers this page" : `${span(one.unmoved_seconds)} before the look`),
      one.name && row("fence, groups", `${grouped(one.fence)}, ${grouped(one.groups)}`),
    ),
    one.workers.length
      ? h("table", { class: "stacked" }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, one.workers.map(worker)))
      : h("p", { class: "empty" }, "It has no workers."),
  );
}

/** The limits that may be made stricter while it runs, and let go again. */
function limitsCard(app, content) {
  const patch = async (key, value) => {
    await app.ask("limits", { method: "PATCH", body: { [key]: value } });
    app.told(value === null ? "The limit is as server.toml has it." : "The limit is changed.");
    await app.refresh();
  };
  const change = (key, row) => () =>
    question(
      "Change this limit?",
      `${NAMES[key] ?? key}: ${shownLimit(key, row.now)} now. It may not be looser than server.toml has it (${shownLimit(key, row.configured)}).`,
      "Change",
      (form) => patch(key, Number(form.get("value"))),
      [
        h("label", { for: "value" }, key.endsWith("_satoshi") ? "Satoshi" : "Number"),
        h("input", { id: "value", name: "value", inputmode: "numeric", pattern: "[0-9]{1,16}", required: true, value: row.now ?? "" }),
      ],
    );
  const release = (key, row) => () =>
    question("Let this limit go?", `It is ${shownLimit(key, row.configured)} again, as server.toml has it.`, "Let it go", () => patch(key, null));
  const button = (key, text, name, act) =>
    h("button", { class: "small", "data-key": `${text} ${key}`, "aria-label": `${text}: ${name}`, onclick: act }, text);
  const lines = Object.entries(content.limits).map(([key, row]) => {
    const name = NAMES[key] ?? key.replaceAll("_", " ");
    const asKey = `${key} ${row.now} ${row.set}`;
    return h(
      "div",
      { "data-key": asKey },
      h("dt", {}, name),
      h(
        "dd",
        { class: "row" },
        shownLimit(key, row.now),
        app.may("steer") && button(asKey, "Change", name, change(key, row)),
        app.may("steer") && row.set !== null && button(asKey, "Let go", name, release(key, row)),
      ),
    );
  });
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Limits"),
    h("p", { class: "quiet" }, "They can be made stricter than server.toml has them while it runs, and hold over restarts."),
    h("dl", { class: "facts long" }, lines),
  );
}
