/** What is happening now: payments, latency, groups, shards and workers. */

import { lines } from "./charts.js";
import { isPayment, isTaken, mean, perSecond, quantile, total } from "./counts.js";
import { question } from "./dialog.js";
import { h } from "./dom.js";
import { count, grouped, rate, sat, seconds, span, time } from "./show.js";

export const isLive = true;

const MINUTES = 5;
const PAYMENTS = "paychan_payments_total";
const LATENCY = "paychan_payment_seconds";

export async function show(app) {
  const { counts, status } = app;
  const parts = [h("h1", {}, "Now")];
  if (!counts.newest || !status) return [...parts, h("p", { class: "quiet" }, "…")];
  const figures = reckon(counts);
  parts.push(opens(app, status), tiles(figures, counts.newest), pictures(figures), workers(status), shards(status));
  return parts;
}

function reckon(counts) {
  return {
    payments: counts.series(perSecond(PAYMENTS, (labels) => isPayment(labels) && isTaken(labels))),
    refused: counts.series(perSecond(PAYMENTS, (labels) => isPayment(labels) && !isTaken(labels))),
    half: counts.series(quantile(LATENCY, 0.5)),
    most: counts.series(quantile(LATENCY, 0.99)),
    groups: counts.series(mean("paychan_group_updates")),
    received: counts.series(perSecond("paychan_received_satoshi_total")),
  };
}

/** Return the mean of the last few values that there are. */
function lately(points) {
  const values = points.slice(-5).map(([, value]) => value).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function tiles(figures, newest) {
  const tile = (name, value, more = "") =>
    h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, more && h("small", {}, more)));
  const orDash = (value, form) => (value === null ? "–" : form(value));
  return h(
    "dl",
    { class: "tiles" },
    tile("payments each second", orDash(lately(figures.payments), rate), `${orDash(lately(figures.refused), rate)} refused`),
    tile("half are answered within", seconds(lately(figures.half)), `99 of 100: ${seconds(lately(figures.most))}`),
    tile("received each second", orDash(lately(figures.received), (value) => sat(Math.round(value)))),
    tile("updates in a group", orDash(lately(figures.groups), rate), `${grouped(total(newest, "paychan_waiting_requests"))} wait`),
  );
}

function pictures(figures) {
  const to = Date.now();
  const from = to - MINUTES * 60_000;
  const card = (title, picture) => h("section", { class: "card", "aria-label": title }, h("h2", {}, title), picture);
  const now = (points, form) => form(lately(points) ?? 0);
  return h(
    "div",
    { class: "grid" },
    card(
      "Payments each second",
      lines(
        `Payments each second over ${MINUTES} minutes: ${now(figures.payments, rate)} accepted and ${now(figures.refused, rate)} refused now`,
        [
          { name: "accepted", points: figures.payments },
          { name: "refused", points: figures.refused },
        ],
        { from, to },
      ),
    ),
    card(
      "From arrival to the disk",
      lines(
        `Latency over ${MINUTES} minutes: half within ${seconds(lately(figures.half))}, 99 of 100 within ${seconds(lately(figures.most))} now`,
        [
          { name: "half", points: figures.half },
          { name: "99 of 100", points: figures.most },
        ],
        { from, to, format: (value) => seconds(value).replace("\u00a0", "\u202f") },
      ),
    ),
    card(
      "Updates in one write",
      lines(
        `Mean size of groups over ${MINUTES} minutes: ${now(figures.groups, rate)} now`,
        [{ name: "updates", points: figures.groups }],
        { from, to },
      ),
    ),
  );
}

function workers(status) {
  const rows = status.workers.map((row) =>
    h(
      "tr",
      { "data-key": row.pid },
      h("th", { scope: "row", "data-label": "worker" }, `${row.number || "–"}`),
      h("td", { "data-label": "process" }, `${row.pid}`),
      h("td", { "data-label": "state" }, h("span", { class: `tag ${row.is_ready ? "open" : "bad"}` }, row.is_ready ? "ready" : row.code || "not ready")),
      h("td", { "data-label": "shards", class: "number" }, grouped(row.shards)),
      h("td", { "data-label": "channels in memory", class: "number" }, grouped(row.loaded_channels)),
      h("td", { "data-label": "last sign of life", class: "number" }, row.silence_seconds === null ? "–" : `${span(row.silence_seconds)} ago`),
    ),
  );
  const empty = h("p", { class: "empty" }, "No worker runs. Once one does, it stands here with its shards.");
  const heads = ["worker", "process", "state", "shards", "channels in memory", "last sign of life"];
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "Workers"),
    rows.length
      ? h("table", { class: "stacked" }, h("thead", {}, h("tr", {}, heads.map((name, at) => h("th", { scope: "col", class: at > 2 ? "number" : null }, name)))), h("tbody", {}, rows))
      : empty,
  );
}

function shards(status) {
  const { chain, shards: all, store, signer } = status;
  const row = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const stopped = all.stopped?.length ? ` ${count(all.stopped.length, "is", "are")} stopped: see Trouble.` : "";
  return h(
    "section",
    { class: "card" },
    h("h2", {}, "What it stands on"),
    h(
      "dl",
      { class: "facts" },
      row("shards here", `${grouped(all.owned)} of ${grouped(all.total)}.${stopped}`),
      row("store", `${store.engine}, ${store.is_up ? "up" : "away"}`),
      row("signer", signer.is_up ? "up" : "away"),
      row("best block", chain.tip_height ?? chain.height ? [grouped(chain.tip_height ?? chain.height), ", ", time(chain.tip_at, true)] : "none in this mode"),
      row("chain source", chain.is_doubtful ? "not trusted" : "trusted"),
      row("version", status.version),
    ),
  );
}

function opens(app, status) {
  const frozen = status.opens?.is_frozen;
  if (!frozen && !app.may("steer")) return null;
  const isForAll = status.opens?.holds_for === "all machines";
  const act = (isFrozen) => async (form) => {
    const cluster = isFrozen ? form.get("cluster") !== null : isForAll;
    await app.ask("opens", { method: "PUT", body: { is_frozen: isFrozen, why: String(form.get("why") ?? "").trim(), cluster } });
    app.told(isFrozen ? "Opens are frozen." : "Channels open again.");
    app.status = await app.ask("status");
    await app.refresh();
  };
  const why = [
    h("label", { for: "why" }, "Why (it is shown here)"),
    h("input", { id: "why", name: "why", maxlength: 200, autocomplete: "off" }),
    status.machine && h("label", {}, h("input", { type: "checkbox", name: "cluster" }), " on all machines, not on this one alone"),
  ];
  const freeze = h(
    "button",
    {
      "data-key": "freeze",
      onclick: () =>
        question("Freeze opens?", "No channel opens until you let them again. Those that are open are paid and settled as before.", "Freeze", act(true), why),
    },
    "Freeze opens",
  );
  const thaw = h("button", { "data-key": "thaw", onclick: () => question("Let channels open?", "Channels open again, at once.", "Let them", act(false)) }, "Let channels open");
  return h(
    "div",
    { class: `strip ${frozen ? "warn" : ""}` },
    frozen
      ? h("p", {}, `No channels open${isForAll ? " on any machine" : status.machine ? " on this machine" : ""}: `, h("q", {}, status.opens.why || "no reason was given"), " since ", time(status.opens.since_at), ".")
      : h("p", { class: "quiet" }, "Channels open."),
    app.may("steer") && (frozen ? thaw : freeze),
  );
}
