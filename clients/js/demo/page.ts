/** The demo page: make a key, put coins in, read and watch for satoshis, close, keep the refund. The payer does all that is
 * money. */

import { renderSVG } from "uqr";

import {
  debugFund,
  findChallenges,
  NeedsFunding,
  PaychanError,
  Payer,
  readRequest,
  type ChannelView,
  type FundingNeed,
} from "../src/index.js";
import { BrowserStore } from "../src/store/browser.js";
import { Wallet } from "../src/core/wallet.js";

interface About {
  readonly network: "live" | "test" | "testnet4" | "signet" | "regtest";
  /** Who gives test coins: the page itself (debug mode), the shop (regtest), or nobody. */
  readonly faucet: "debug" | "regtest" | "";
  readonly articles: readonly { readonly path: string; readonly title: string }[];
  readonly stream: { readonly path: string; readonly title: string };
}

const BUDGETS = { request: 1_000, hour: 150_000, day: 300_000, open: 120_000, deposit: 2_000_000 };
const DEPOSIT = 200_000;
const REFUND_FEE_RATE = 3;
const POINTS = 60;
const WORDS_ARE_SAFE = "paychan-words-are-safe";

const byId = <T extends Element = HTMLElement>(id: string): T => document.getElementById(id) as unknown as T;
const show = (id: string, isShown: boolean): void => void byId(id).toggleAttribute("hidden", !isShown);
const say = (id: string, text: string): void => void (byId(id).textContent = text);
const sat = (value: number): string => `${value.toLocaleString("en").replaceAll(",", "\u202f")}\u00a0sat`;
const day = (seconds: number): string =>
  new Date(seconds * 1000).toLocaleDateString("en", { day: "numeric", month: "long", year: "numeric" });

let about: About;
let store: BrowserStore;
let payer: Payer | null = null;
let need: FundingNeed | null = null;
let watching: AbortController | null = null;
const bought = new Map<string, { title: string; text: string }>();

/** Do what a button says; it can be pressed again when that is over. What goes wrong is told. */
function on(id: string, work: (element: HTMLElement) => Promise<void> | void): void {
  const element = byId(id);
  const isForm = element instanceof HTMLFormElement;
  element.addEventListener(isForm ? "submit" : "click", (event) => {
    event.preventDefault();
    void attempt(isForm ? (element.querySelector("button") as HTMLButtonElement) : (element as HTMLButtonElement), () =>
      work(element),
    );
  });
}

async function attempt(button: HTMLButtonElement, work: () => Promise<void> | void): Promise<void> {
  show("problem", false);
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    await explain(error);
  } finally {
    button.disabled = false;
    await refresh();
  }
}

async function explain(error: unknown): Promise<void> {
  if (error instanceof NeedsFunding) {
    need = error.need as FundingNeed;
    byId("fund").scrollIntoView({ behavior: "smooth" });
    return;
  }
  const code = error instanceof PaychanError ? error.code : "";
  const texts: Record<string, string> = {
    funding_pending: "Your coins are on their way: the network has not confirmed them yet. Try again in a few minutes.",
    outcome_unknown: "There was no answer to your payment. Nothing is lost: press the same button again.",
    over_budget: "This is more than this page may spend by itself.",
    busy: "Another tab is using your key.",
  };
  say("problem", texts[code] ?? (error as Error).message);
  show("problem", true);
  byId("problem").scrollIntoView({ block: "nearest" });
}

// --- the key ---

async function openPayer(words?: string): Promise<void> {
  payer = await Payer.open({ store, network: about.network, budgets: BUDGETS, deposit: DEPOSIT, ...(words ? { words } : {}) });
}

async function restore(): Promise<void> {
  const text = byId<HTMLTextAreaElement>("restore-text").value.trim();
  if (text.startsWith("{")) await Payer.restore(store, text);
  await openPayer(text.startsWith("{") ? undefined : Wallet.restore(text).words);
  setSafe(true);
  byId<HTMLTextAreaElement>("restore-text").value = "";
}

/** Whether the words are hidden again, because they were written down. */
const isSafe = (): boolean => localStorage.getItem(WORDS_ARE_SAFE) === "yes";

function setSafe(isIt: boolean): void {
  localStorage.setItem(WORDS_ARE_SAFE, isIt ? "yes" : "");
}

function showWords(): void {
  const words = payer && !isSafe() ? payer.words.split(" ") : [];
  byId("words").replaceChildren(...words.map((word) => Object.assign(document.createElement("li"), { textContent: word })));
}

function save(name: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text]));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

// --- coins ---

const here = (path: string): string => new URL(path, location.href).href;
const firstArticle = (): string => here(about.articles[0]?.path ?? "/");

/** Agree on a channel with this site. Throws needs_funding, which says what to pay. */
async function begin(): Promise<void> {
  const order = { method: "GET", url: firstArticle(), key: "", request: "" };
  await payer?.http.chooseFor(await (payer as Payer).http.ask(firstArticle(), "GET"), order);
}

async function faucet(): Promise<void> {
  if (!payer || !need) return;
  if (about.faucet === "debug") {
    await payer.funded(need.channel, await debugFund(need));
  } else {
    const body = JSON.stringify({ address: need.address, value: need.value });
    const answer = await fetch("faucet", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    if (!answer.ok) throw new Error("The test coins could not be had. Try again.");
    await payer.funded(need.channel, await answer.json());
  }
  need = null;
}

async function funded(): Promise<void> {
  const field = byId<HTMLTextAreaElement>("funded-text");
  if (!payer || !need) return;
  await payer.funded(need.channel, { transaction: field.value.trim() });
  field.value = "";
  need = null;
}

// --- goods ---

async function read(path: string): Promise<void> {
  const started = performance.now();
  const before = await spent();
  if (!bought.has(path)) {
    const answer = await (payer as Payer).fetch(here(path));
    if (!answer.ok) throw new Error(`The article cannot be had (${answer.status}).`);
    bought.set(path, await answer.json());
    const took = Math.round(performance.now() - started);
    const opening = before === 0 ? `, most of it for opening the channel` : "";
    say("article-paid", `Paid ${sat((await spent()) - before)}${opening}; it took ${took} ms.`);
  } else {
    say("article-paid", "Yours already.");
  }
  const { title, text } = bought.get(path) as { title: string; text: string };
  say("article-title", title);
  byId("article-text").replaceChildren(
    ...text.split("\n\n").map((part) => Object.assign(document.createElement("p"), { textContent: part })),
  );
  show("article", true);
  byId("article").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

async function spent(): Promise<number> {
  return (await current())?.signed ?? 0;
}

async function watch(): Promise<void> {
  if (watching) {
    watching.abort();
    return;
  }
  watching = new AbortController();
  const before = await spent();
  const heights: number[] = [];
  show("tide", true);
  say("watch-toggle", "Stop");
  try {
    for await (const event of (payer as Payer).events(here(about.stream.path), {}, { signal: watching.signal })) {
      const { height } = JSON.parse(event.data) as { height: number };
      heights.push(height);
      draw(heights.slice(-POINTS));
      const paid = (await spent()) - before;
      say("watch-paid", `${heights.length} second${heights.length === 1 ? "" : "s"}, ${sat(paid)} paid.`);
      await balance();
    }
  } catch (error) {
    if (!watching.signal.aborted) throw error;
  } finally {
    watching = null;
    say("watch-toggle", "Watch");
  }
}

function draw(heights: readonly number[]): void {
  const points = heights.map((height, at) => `${(at * 600) / (POINTS - 1)} ${(110 - height * 100).toFixed(1)}`);
  const line = `M${points.join("L")}`;
  byId("tide-line").setAttribute("d", line);
  byId("tide-area").setAttribute("d", `${line}L${((heights.length - 1) * 600) / (POINTS - 1)} 120L0 120Z`);
}

// --- the channel ---

async function current(): Promise<ChannelView | null> {
  const views = payer ? await payer.channels() : [];
  const usable = views.filter(
    (view) => view.origin === location.origin && view.phase !== "over" && view.phase !== "unfunded" && !view.hold,
  );
  return usable.at(-1) ?? null;
}

async function close(): Promise<void> {
  watching?.abort();
  const view = await current();
  if (payer && view) await payer.close(view.number);
}

async function refund(): Promise<void> {
  const view = await current();
  if (!payer || !view) return;
  const made = await payer.refund(view.number, REFUND_FEE_RATE);
  save(
    `refund-${view.number}.txt`,
    `Valid from ${new Date(made.validAfter * 1000).toUTCString()} on, if the channel was not closed by then.\n` +
      `Pays ${made.value} satoshi back to ${view.need.address ? "your key" : ""}.\n\n${made.raw}\n`,
  );
}

// --- what is shown ---

async function balance(): Promise<void> {
  const view = await current();
  show("balance", view !== null);
  if (!view) return;
  say("balance", `${sat(view.change)} left`);
  showChannel(view);
}

async function refresh(): Promise<void> {
  const view = await current();
  const views = payer ? await payer.channels() : [];
  const closed = view ? undefined : views.findLast((one) => one.settlement !== null);
  show("key-none", payer === null);
  show("key-backup", payer !== null && !isSafe());
  show("key-have", payer !== null && isSafe());
  showWords();
  const isReady = payer !== null && isSafe();
  const isFresh = !view && !closed;
  if (isReady && byId("key").nextElementSibling) byId("key").parentElement?.append(byId("key")); // goods come first from now on
  show("fund", isReady && (isFresh || need !== null));
  show("fund-ask", need === null);
  show("fund-need", need !== null);
  if (need) showNeed(need);
  show("read", isReady && view !== null);
  show("watch", isReady && view !== null);
  show("channel", isReady && view !== null);
  show("closed", isReady && closed !== undefined && need === null);
  if (closed) {
    say("closed-change", sat(closed.change));
    say("closed-txid", closed.settlement ?? "");
  }
  for (const button of byId("articles").querySelectorAll("button")) {
    const isMine = bought.has(button.dataset["path"] as string);
    const price = button.querySelector(".price") as HTMLElement;
    price.classList.toggle("mine", isMine);
    if (isMine) price.textContent = "read";
  }
  await balance();
}

function showNeed(what: FundingNeed): void {
  say("need-value", sat(what.value));
  say("need-fee", `${sat(what.openPrice)} of it pay for closing the channel on the chain.`);
  say("need-address", what.address);
  const link = byId<HTMLAnchorElement>("need-qr");
  link.href = what.uri;
  link.innerHTML = renderSVG(what.uri, { border: 0 });
  show("faucet", about.faucet !== "");
  const blocks = what.confirmations === 1 ? "one confirmation" : `${what.confirmations} confirmations`;
  say("need-wait", what.confirmations > 0 ? `The channel opens after ${blocks}.` : "");
}

function showChannel(view: ChannelView): void {
  byId<HTMLMeterElement>("channel-meter").value = view.signed / view.deposit;
  say("channel-deposit", sat(view.deposit));
  say("channel-spent", sat(view.signed));
  say("channel-change", sat(view.change));
  say("channel-end", day(view.paymentsEnd));
  say("channel-refund", day(view.refundableFrom));
  byId<HTMLButtonElement>("close").disabled = view.phase !== "open";
}

async function showGoods(): Promise<void> {
  const items = about.articles.map(({ path, title }) => {
    const button = document.createElement("button");
    button.dataset["path"] = path;
    const name = Object.assign(document.createElement("span"), { className: "name", textContent: title });
    const price = Object.assign(document.createElement("span"), { className: "price", textContent: "…" });
    button.append(name, price);
    button.addEventListener("click", () => void attempt(button, () => read(path)));
    void priceOf(path).then((text) => bought.has(path) || (price.textContent = text));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  byId("articles").replaceChildren(...items);
  say("watch-what", `${about.stream.title}: ${await priceOf(about.stream.path)} a second`);
}

/** What a resource costs, as its own challenge says. */
async function priceOf(path: string): Promise<string> {
  const answer = await fetch(here(path));
  const [challenge] = findChallenges(answer.headers);
  return challenge ? sat(readRequest(challenge).amount) : "free";
}

// --- the beginning ---

async function start(): Promise<void> {
  about = await (await fetch("about")).json();
  say(
    "network",
    about.network === "live" ? "" : `The coins here are test coins (network ${about.network}): they are worth nothing.`,
  );
  store = await BrowserStore.open(`paychan-${about.network}`);
  if ((await store.read("wallet")) !== null) await openPayer();
  await showGoods();
  await refresh();
}

on("make", () => openPayer());
on("restore-open", () => show("restore", true));
on("restore", restore);
on("backed", () => setSafe(true));
on("show-words", () => setSafe(false));
on("copy-words", () => navigator.clipboard.writeText(payer?.words ?? ""));
on("copy-address", () => navigator.clipboard.writeText(need?.address ?? ""));
on("download", async () => save("paychan-backup.json", (await payer?.backup()) ?? ""));
on("fund-begin", begin);
on("again", begin);
on("faucet", faucet);
on("funded", funded);
on("close", close);
on("refund", refund);
byId("watch-toggle").addEventListener("click", () => {
  show("problem", false);
  void watch().catch(explain).finally(refresh);
});

start().catch(explain);
