/** The settlements that are under way, as a line from closing to the sixth block. */

import { pages } from "./channels.js";
import { h } from "./dom.js";
import { age } from "./money.js";
import { channelLink, count, sat, span, time } from "./show.js";

const STEPS = ["closing", "signed", "sent", "mined", "buried"];
const ROWS = 50;
const TROUBLES = {
  expires_soon: "expires within three hours and is in no block",
  not_signed: "waits to be signed",
  not_published: "is signed and not published",
  not_mined: "waits for a block for long",
};

export async function show(app, _, state) {
  state.pages ??= [""];
  const query = new URLSearchParams({ limit: ROWS, after: state.pages.at(-1) });
  const content = await app.ask(`settlements?${query}`);
  const parts = [h("h1", {}, "Settlements")];
  if (!content.settlements.length)
    return [...parts, h("p", { class: "empty card" }, "None is under way. A channel that is closed, or near its expiry, stands here until its settlement is buried."), age(content)];
  const cards = content.settlements.map((row) => card(row, content.confirmations_needed));
  return [
    ...parts,
    h("p", { class: "quiet" }, `${count(content.total, "settlement")} under way, the soonest expiry first`),
    h("ul", { class: "pipeline" }, cards),
    pages(app, state, content),
    age(content),
  ];
}

function card(row, needed) {
  const depth = row.confirmations ?? 0;
  const at = row.phase === "broadcast" ? (depth >= needed ? 4 : depth > 0 ? 3 : 2) : STEPS.indexOf(row.phase);
  const steps = STEPS.map((name, number) =>
    h("li", { class: number < at ? "done" : number === at ? "here" : "", "aria-current": number === at ? "step" : null }, name === "mined" && depth > 0 ? `${depth} of ${needed} blocks` : name),
  );
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h(
    "li",
    { class: `card ${row.trouble ? "troubled" : ""}`, "data-key": row.outpoint },
    h("p", { class: "row spread" }, channelLink(row.outpoint), h("strong", { class: "number" }, sat(row.received_satoshi))),
    h("ol", { class: "steps" }, steps),
    row.trouble && h("p", { class: "bad" }, `It ${TROUBLES[row.trouble] ?? row.trouble}.`),
    h(
      "dl",
      { class: "facts" },
      fact("fee", row.fee_satoshi === null ? "none yet" : `${sat(row.fee_satoshi)}, ${row.fee_per_byte} a byte`),
      fact("in this phase for", `${span(Date.now() / 1000 - row.seen_since_at)} or longer`),
      fact("expires", time(row.expires_at, true)),
      fact("confirmations", row.confirmations === null ? (row.phase === "broadcast" ? "not known" : "none") : `${row.confirmations} of ${needed}`),
      fact("transaction", row.txid ? h("code", {}, row.txid) : "not signed"),
    ),
  );
}
