/** What is wrong, and what to do about it. */

import { h } from "./dom.js";
import { time } from "./show.js";

export async function show(app) {
  const content = await app.ask("trouble");
  app.troubles = content.trouble;
  const parts = [h("h1", {}, "Trouble")];
  if (!content.trouble.length)
    return [...parts, h("p", { class: "empty card" }, "Nothing is wrong. What is, stands here with what to do about it.")];
  const cards = content.trouble.map((one) =>
    h(
      "li",
      { class: `card ${one.is_urgent ? "urgent" : "warn"}`, "data-key": one.code },
      h("h2", {}, one.what),
      h("p", {}, one.do),
      h("p", { class: "quiet" }, h("code", {}, one.code), ", seen ", time(one.since_at, true), ". More: ", h("code", {}, `docs/${one.see}`)),
    ),
  );
  return [...parts, h("ul", { class: "plain" }, cards)];
}
