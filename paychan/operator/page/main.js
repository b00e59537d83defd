/** The page: whose token, which view, and what is asked for again while it is looked at. */

import { ask, Refused, token } from "./ask.js";
import * as channels from "./channels.js";
import * as cluster from "./cluster.js";
import { Counts } from "./counts.js";
import { $, h, put } from "./dom.js";
import * as money from "./money.js";
import * as now from "./now.js";
import * as settlements from "./settlements.js";
import { clock } from "./show.js";
import * as trouble from "./trouble.js";

const LOOK_SECONDS = 2;
const VIEW_SECONDS = 4;
const VIEWS = [
  ["now", "Now", now],
  ["money", "Money", money],
  ["channels", "Channels", channels],
  ["settlements", "Settlements", settlements],
  ["trouble", "Trouble", trouble],
  ["cluster", "Cluster", cluster],
];

/** What all views share. scope: of the token, null while it is not known. */
const app = { counts: new Counts(), status: null, troubles: null, scope: null, ask: watched, refresh, told, isCurrent };

let round = 0;
let seenAt = 0;
let shown = null;

const may = (scope) => app.scope === null || ["watch", "settle", "steer"].indexOf(app.scope) >= ["watch", "settle", "steer"].indexOf(scope);
app.may = may;

/** Ask; note whether the server answers, and go back to the token if it is no good any more. */
async function watched(path, options) {
  try {
    const content = await ask(path, options);
    seenAt = Date.now();
    put($("away"));
    $("away").hidden = true;
    return content;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) signOut("This token is not good any more.");
    else if (error.status === 0 || error.status >= 500) isAway(error);
    throw error;
  }
}

function isAway(error) {
  const since = seenAt ? ` What is shown was last seen at ${clock(seenAt)}.` : "";
  $("away").hidden = false;
  put($("away"), `${error.message}${since}`);
}

function told(text) {
  put($("told"), text);
  setTimeout(() => $("told").textContent === text && put($("told")), 6000);
}

// --- the token ---

async function signIn(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  token.set($("token").value.trim());
  try {
    await ask("status");
    $("token").value = "";
    begin();
  } catch (error) {
    token.forget();
    $("sign-in-problem").hidden = false;
    put($("sign-in-problem"), error.status === 401 ? "The server does not know this token." : error.message);
    $("token").focus();
  } finally {
    button.disabled = false;
  }
}

function signOut(why = "") {
  token.forget();
  round += 1;
  Object.assign(app, { counts: new Counts(), status: null, troubles: null, scope: null });
  if ($("dialog").open) $("dialog").close();
  put($("view"));
  $("top").hidden = true;
  $("away").hidden = true;
  $("sign-in").hidden = false;
  $("sign-in-problem").hidden = !why;
  put($("sign-in-problem"), why);
  document.title = "paychan";
  $("token").focus();
}

// --- views ---

const place = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);

function isCurrent(started) {
  return started === round;
}

function route() {
  if (!token.get()) return;
  round += 1;
  const [name, ...rest] = place();
  const [key, title, view] = VIEWS.find(([one]) => one === name) ?? VIEWS[0];
  document.title = `${title} – paychan`;
  const isSame = shown?.key === key && shown.rest.join("/") === rest.join("/");
  shown = { key, title, view, rest, state: isSame ? shown.state : {} };
  if (!isSame) put($("view"), h("h1", { "data-key": key }, title), h("p", { class: "quiet", "data-key": "wait" }, "…"));
  drawViews();
  show();
}

async function show() {
  const started = round;
  const { view, rest, state } = shown;
  try {
    const content = await view.show(app, rest, state);
    if (isCurrent(started)) put($("view"), content);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const isWaiting = $("view").querySelector('[data-key="wait"]') !== null;
    if (isCurrent(started) && error.status !== 401 && (isWaiting || (error.status >= 400 && error.status < 500)))
      put($("view"), h("h1", {}, shown.title), h("p", { class: "bad", "data-key": "wait" }, error.message));
  }
}

function refresh() {
  return show();
}

function drawViews() {
  const badge = app.troubles?.length ?? 0;
  const isUrgent = app.troubles?.some((one) => one.is_urgent);
  put(
    $("views"),
    VIEWS.map(([key, title]) =>
      h(
        "li",
        { "data-key": key },
        h(
          "a",
          { href: `#/${key}`, "aria-current": shown?.key === key ? "page" : null },
          title,
          key === "trouble" && badge > 0 && h("span", { class: `badge ${isUrgent ? "urgent" : ""}` }, `${badge}`),
        ),
      ),
    ),
  );
  const status = app.status;
  if (!status) return;
  put($("name"), status.machine ? `paychan ${status.machine}` : "paychan");
  $("state").className = `state ${status.ready.is_ready ? "good" : "bad"}`;
  put($("state"), `${status.network}, ${status.ready.is_ready ? (status.opens?.is_frozen ? "opens frozen" : "ready") : `not ready: ${status.ready.code}`}`);
}

// --- looking again ---

async function look(started) {
  for (let turn = 0; isCurrentSession(started); turn += 1) {
    const asked = [watched("counts").then((counts) => app.counts.add(counts)), watched("status").then((status) => (app.status = status))];
    if (turn % 2 === 0) asked.push(watched("trouble").then((found) => (app.troubles = found.trouble)));
    await Promise.allSettled(asked);
    if (!isCurrentSession(started)) return;
    drawViews();
    if (shown && (shown.view.isLive || (turn * LOOK_SECONDS) % VIEW_SECONDS === 0)) await show();
    await pause(LOOK_SECONDS);
  }
}

/** Wait; a page that nobody looks at asks for nothing. */
async function pause(seconds) {
  await new Promise((done) => setTimeout(done, seconds * 1000));
  while (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
}

let session = 0;
const isCurrentSession = (started) => started === session && token.get() !== "";

async function begin() {
  session += 1;
  $("sign-in").hidden = true;
  $("top").hidden = false;
  ask("token").then(
    (found) => (app.scope = found.scope),
    () => (app.scope = null),
  );
  route();
  $("main").focus();
  await look(session);
}

$("sign-in").addEventListener("submit", signIn);
$("sign-out").addEventListener("click", () => signOut());
addEventListener("hashchange", () => {
  route();
  $("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});

if (token.get()) begin();
else signOut();
