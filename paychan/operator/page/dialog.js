/** A question before something is done that cannot be undone. */

import { $, h, put } from "./dom.js";

/** Ask; `act` is called if the answer is yes, and what it throws is shown. fields: elements between text and buttons. */
export function question(title, text, yes, act, fields = []) {
  const dialog = $("dialog");
  const problem = h("p", { class: "bad", role: "alert", hidden: true });
  const go = h("button", { class: "main", "data-whole": true }, yes);
  const no = h("button", { type: "button", "data-whole": true, onclick: () => dialog.close() }, "No");
  const form = h(
    "form",
    {
      "data-whole": true,
      onsubmit: async (event) => {
        event.preventDefault();
        go.disabled = true;
        try {
          await act(new FormData(event.target));
          dialog.close();
        } catch (error) {
          problem.hidden = false;
          problem.textContent = error.message;
        } finally {
          go.disabled = false;
        }
      },
    },
    h("h2", { id: "dialog-title" }, title),
    h("p", {}, text),
    fields,
    problem,
    h("p", { class: "row end" }, no, go),
  );
  dialog.replaceChildren(form);
  dialog.showModal();
  no.focus();
}
