/** The machines that share the channels, and this one's limits. */

import { question } from "./dialog.js";
import { h } from "./dom.js";
import { count, grouped, limit } from "./show.js";

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
  const machines = content.machines.map((one) =>
    h(
      "li",
      { class: "card", "data-key": one.name },
      h("h2", {}, one.name || "This machine", " ", h("span", { class: `tag ${one.is_ready ? "open" : "bad"}` }, one.is_ready ? "ready" : "not ready")),
      h("p", {}, `${count(one.shards, "shard")} on ${count(one.workers.length, "worker")}${one.is_this ? "; it answers this page" : ""}.`),
    ),
  );
  const elsewhere = content.elsewhere_shards
    ? h("p", { class: "quiet" }, `${count(content.elsewhere_shards, "shard")} of ${grouped(content.shards.total)} ${content.elsewhere_shards === 1 ? "is" : "are"} owned by other machines. Each machine’s own page tells of its workers.`)
    : h("p", { class: "quiet" }, content.is_cluster ? "This machine owns all shards now." : "There is one machine. With [cluster] in server.toml others can share its channels.");
  const database = content.database
    ? h("section", { class: "card" }, h("h2", {}, "Database"), h("p", {}, `PostgreSQL, ${content.database.name} at ${content.database.hosts.join(", ")}. paychan-store postgres look tells of its standbys.`))
    : null;
  return [h("h1", {}, "Cluster"), h("ul", { class: "plain grid" }, machines), elsewhere, database, limits && limitsCard(app, limits)];
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
