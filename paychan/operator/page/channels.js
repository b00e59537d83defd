/** Channels: a list with search, filter and order, and one of them. */

import { question } from "./dialog.js";
import { h } from "./dom.js";
import { age } from "./money.js";
import { channelLink, count, grouped, phase, sat, time } from "./show.js";

const PHASES = [
  ["unsettled", "unsettled"],
  ["open", "open"],
  ["closing", "closing"],
  ["signed", "signed"],
  ["broadcast", "broadcast"],
  ["settled", "settled"],
  ["", "all"],
];
const ORDERS = [
  ["expiry", "soonest expiry first"],
  ["value", "most received first"],
  ["opened", "newest first"],
];
const ROWS = 50;

export async function show(app, rest, state) {
  if (/^[0-9a-f]{64}$/i.test(rest[0] ?? "") && rest[1]) return single(app, `${rest[0].toLowerCase()}/${rest[1]}`);
  if (!("phase" in state)) Object.assign(state, { phase: rest[0] === "phase" ? rest[1] : "unsettled", order: "expiry", search: "", pages: [""] });
  const query = new URLSearchParams({ phase: state.phase, order: state.order, search: state.search, after: state.pages.at(-1), limit: ROWS });
  let content = null;
  let problem = "";
  try {
    content = await app.ask(`channels?${query}`);
  } catch (error) {
    if (error.status !== 400) throw error;
    problem = error.message;
  }
  return [h("h1", {}, "Channels"), filters(app, state), problem ? h("p", { class: "bad", role: "alert" }, problem) : list(app, state, content)];
}

function filters(app, state) {
  const change = (values) => {
    Object.assign(state, values, { pages: [""] });
    app.refresh();
  };
  const select = (id, name, options, value, act) => {
    const entries = options.map(([key, text]) => h("option", { value: key, selected: key === value }, text));
    return h("div", { class: "field" }, h("label", { for: id }, name), h("select", { id, onchange: (event) => act(event.target.value) }, entries));
  };
  return h(
    "form",
    {
      class: "filters",
      role: "search",
      "data-key": "filters",
      onsubmit: (event) => {
        event.preventDefault();
        change({ search: event.target.querySelector("#search").value.trim() });
      },
    },
    h("div", { class: "field wide" }, h("label", { for: "search" }, "Search"), h("input", { id: "search", type: "search", placeholder: "part of an outpoint", autocomplete: "off", spellcheck: "false", maxlength: 80 })),
    select("phase", "Phase", PHASES, state.phase, (value) => change({ phase: value })),
    select("order", "Order", ORDERS, state.order, (value) => change({ order: value })),
    h("button", {}, "Find"),
  );
}

function list(app, state, content) {
  if (!content.channels.length) return [h("p", { class: "empty card" }, nothing(state, content)), age(content)];
  const heads = ["channel", "phase", "received", "of", "spent", "expires", "opened"];
  const numbers = new Set(["received", "of", "spent"]);
  const rows = content.channels.map((row) =>
    h(
      "tr",
      { "data-key": row.outpoint },
      h("th", { scope: "row", "data-label": "channel" }, channelLink(row.outpoint)),
      h("td", { "data-label": "phase" }, phase(row.phase, row.is_lost)),
      h("td", { "data-label": "received", class: "number" }, sat(row.received_satoshi)),
      h("td", { "data-label": "of", class: "number" }, sat(row.funding_value_satoshi)),
      h("td", { "data-label": "spent", class: "number" }, sat(row.spent_satoshi)),
      h("td", { "data-label": "expires" }, time(row.expires_at)),
      h("td", { "data-label": "opened" }, time(row.opened_at)),
    ),
  );
  const first = (state.pages.length - 1) * ROWS + 1;
  return [
    h("p", { class: "quiet", "aria-live": "polite" }, `${count(content.total, "channel")}, ${grouped(first)} to ${grouped(first + rows.length - 1)}`),
    h(
      "div",
      { class: "card flat" },
      h(
        "table",
        { class: "stacked" },
        h("caption", { class: "unseen" }, "Channels"),
        h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col", class: numbers.has(name) ? "number" : null }, name)))),
        h("tbody", {}, rows),
      ),
    ),
    pages(app, state, content),
    age(content),
  ];
}

function nothing(state, content) {
  if (state.search) return `No channel’s outpoint has “${state.search}” in it. One that was settled long ago is found by its whole outpoint: #/channels/TXID/VOUT.`;
  if (!content.is_complete) return "The channels are being read. They stand here in a moment.";
  return "There are none. A channel stands here once a payer has opened it.";
}

export function pages(app, state, content) {
  const go = (act) => () => {
    act();
    app.refresh();
    scrollTo(0, 0);
  };
  const back = h("button", { disabled: state.pages.length < 2, "data-key": `back-${state.pages.length}`, onclick: go(() => state.pages.pop()) }, "Back");
  const next = h("button", { disabled: !content.next, "data-key": `next-${content.next}`, onclick: go(() => state.pages.push(content.next)) }, "More");
  return (state.pages.length > 1 || content.next) && h("p", { class: "row" }, back, next);
}

// --- one ---

async function single(app, outpoint) {
  const row = await app.ask(`channels/${outpoint}`);
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const isOver = row.phase === "settled";
  return [
    h("p", {}, h("a", { href: "#/channels" }, "← Channels")),
    h("h1", {}, "Channel ", phase(row.phase, row.is_lost)),
    h("p", { class: "mono whole" }, row.outpoint),
    h(
      "dl",
      { class: "tiles" },
      tile("received", sat(row.received_satoshi), `of ${sat(row.funding_value_satoshi)}`),
      tile("spent on purchases", sat(row.spent_satoshi), row.reserved_satoshi ? `${sat(row.reserved_satoshi)} of it are reserved` : ""),
      tile("the payer’s credit", sat(row.credit_satoshi)),
      tile("expires", time(row.expires_at, true), isOver ? "" : ["is settled by itself ", time(row.settles_at, true)]),
    ),
    act(app, row),
    h(
      "div",
      { class: "grid" },
      h("section", { class: "card" }, h("h2", {}, "Settlement"), settlement(row.settlement)),
      h("section", { class: "card" }, h("h2", {}, "History"), history(row.history)),
    ),
    h(
      "section",
      { class: "card" },
      h("h2", {}, "Terms"),
      h(
        "dl",
        { class: "facts" },
        fact("opened", time(row.opened_at)),
        fact("expires", time(row.expires_at)),
        fact("payer’s key", h("code", {}, row.terms.client_pubkey)),
        fact("our key", h("code", {}, row.terms.server_pubkey)),
        fact("change goes to", h("code", {}, row.terms.change_script)),
        fact("sales", row.sales.revision ? `${count(row.sales.revision, "change")}, ${count(row.sales.remembered.length, "purchase")} remembered` : "nothing was sold"),
      ),
    ),
  ];
}

const tile = (name, value, more = "") => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, more)));

function act(app, row) {
  if (row.phase === "settled" || !app.may("settle")) return null;
  const settle = async () => {
    await app.ask(`channels/${row.outpoint}/settle`, { method: "POST" });
    app.told("It is being settled.");
    await app.refresh();
  };
  const text = `The channel is closed for payments, and its settlement of ${sat(row.received_satoshi)} is signed and published. That cannot be undone.`;
  return h("p", { class: "acts" }, h("button", { "data-key": `settle-${row.outpoint}`, onclick: () => question("Settle this channel now?", text, "Settle now", settle) }, "Settle now"));
}

function settlement(found) {
  if (!found) return h("p", { class: "empty" }, "None is signed. Its transaction stands here with its fee and its depth.");
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return [
    h(
      "dl",
      { class: "facts" },
      fact("transaction", h("code", {}, found.txid)),
      fact("fee", found.fee_satoshi === null ? "not known" : `${sat(found.fee_satoshi)}, ${found.fee_per_byte} a byte`),
      fact("confirmations", found.confirmations === null ? "not known" : grouped(found.confirmations)),
    ),
    h("details", {}, h("summary", {}, "The transaction, to publish it elsewhere"), h("code", { class: "raw" }, found.transaction)),
  ];
}

function history(events) {
  if (!events.length) return h("p", { class: "empty" }, "Nothing is known.");
  const entries = events.map((one) =>
    h("li", {}, h("span", {}, one.type.replace(/^channel\./, "").replaceAll("_", " ")), " ", time(one.at), detail(one)),
  );
  return h("ol", { class: "history" }, entries);
}

function detail(one) {
  const said = Object.entries(one.data ?? {}).filter(([, value]) => value !== null && value !== 0 && value !== "");
  if (!said.length) return null;
  const texts = said.map(([key, value]) => `${key.replace(/_satoshi$/, "").replaceAll("_", " ")} ${key.endsWith("_satoshi") ? sat(value) : value}`);
  return h("small", {}, texts.join(", "));
}
