/** Aim: an operator can look at everything and act, at any width, in the dark, by keyboard; nothing that a machine or a person named
 * becomes markup; nothing is loaded or run but the page's own files. Method: a real system in debug mode with channels that are paid
 * (PAYCHAN_OPERATOR_URL, PAYCHAN_OPERATOR_TOKENS: watch, settle, steer), Chromium (PAYCHAN_CHROMIUM) by playwright.
 * PAYCHAN_SCREENSHOTS: a directory for pictures, if somebody wants to look. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { tooDim } from "./looks.js";

/** What nobody reads by its contrast: what may not be used now, what is for screen readers, what shows when it has the focus. */
const UNREAD = ":disabled, .unseen, .skip";

const URL = process.env.PAYCHAN_OPERATOR_URL;
const [WATCH, SETTLE, STEER] = (process.env.PAYCHAN_OPERATOR_TOKENS ?? "").split(" ");
const PICTURES = process.env.PAYCHAN_SCREENSHOTS;
const WIDE = { viewport: { width: 1180, height: 820 } };
const PATIENCE = 60_000;
const VIEWS = {
  now: "Workers",
  money: "At risk, by expiry",
  channels: "soonest expiry first",
  settlements: "None is under way",
  trouble: "Trouble",
  cluster: "Limits",
};

let browser;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.PAYCHAN_CHROMIUM,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
});

after(() => browser.close());

async function visit(token, options = WIDE) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.message));
  page.on("console", (said) => said.type() === "error" && page.errors.push(said.text()));
  page.on("request", (asked) => asked.url().startsWith(URL) || page.errors.push(`asked ${asked.url()}`));
  await page.goto(`${URL}/`);
  if (token) {
    await page.fill("#token", token);
    await page.press("#token", "Enter");
    await page.waitForSelector("#views a");
  }
  return { context, page };
}

async function open(page, view) {
  await page.click(`#views a[href="#/${view}"]`);
  await page.waitForFunction((text) => document.querySelector("#view").textContent.includes(text), VIEWS[view]);
}

async function picture(page, name) {
  if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
}

for (const [name, options] of [
  ["wide-light", { ...WIDE, colorScheme: "light" }],
  ["narrow-dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true, reducedMotion: "reduce" }],
]) {
  test(`every view fits and can be read: ${name}`, { timeout: 300_000 }, async () => {
    const { context, page } = await visit(STEER, options);
    await page.waitForFunction(() => document.querySelector(".line-0")?.getAttribute("d")?.includes("L"));
    for (const view of Object.keys(VIEWS)) {
      await open(page, view);
      await picture(page, `${name}-${view}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${view} is too wide`);
      assert.deepEqual(await page.evaluate(tooDim, UNREAD), [], view);
      assert.deepEqual(await page.evaluate(nameless), [], view);
    }
    await open(page, "channels");
    await page.click("tbody a");
    await page.waitForFunction(() => document.querySelector("#view").textContent.includes("payer’s key"));
    await picture(page, `${name}-channel`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    assert.deepEqual(await page.evaluate(tooDim, UNREAD), []);
    assert.deepEqual(page.errors, []);
    await context.close();
  });
}

test("by keyboard: past the navigation, to a view, into a channel and back", { timeout: 120_000 }, async () => {
  const { context, page } = await visit(WATCH);
  await page.evaluate(() => document.activeElement.blur());
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
  await page.evaluate(() => scrollTo(0, 0));
  await page.keyboard.press("Tab");
  for (let turn = 0; turn < 12 && (await focused()) !== "Channels"; turn += 1) await page.keyboard.press("Shift+Tab");
  assert.equal(await focused(), "Channels");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none");
  await page.keyboard.press("Enter");
  await page.waitForSelector("tbody a");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  for (let turn = 0; turn < 12; turn += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement.matches("tbody a"))) break;
  }
  const outpoint = await page.evaluate(() => document.activeElement.title);
  await page.waitForTimeout(5000); // rows are drawn anew meanwhile, and the focus stays
  assert.equal(await page.evaluate(() => document.activeElement.title), outpoint);
  await page.keyboard.press("Enter");
  await page.waitForFunction((name) => document.querySelector("#view .whole")?.textContent === name, outpoint);
  assert.equal(await page.locator("button", { hasText: "Settle now" }).count(), 0); // this token only looks
  assert.deepEqual(page.errors, []);
  await context.close();
});

test("search, filter and order, and what is no outpoint", { timeout: 120_000 }, async () => {
  const { context, page } = await visit(WATCH);
  await open(page, "channels");
  const rows = page.locator("tbody tr");
  await rows.first().waitFor();
  const outpoint = await page.getAttribute("tbody a >> nth=1", "title");
  await page.fill("#search", outpoint.slice(5, 30));
  await page.press("#search", "Enter");
  await page.waitForFunction((name) => document.querySelectorAll("tbody tr").length === 1 && document.querySelector("tbody a").title === name, outpoint);
  await page.fill("#search", "<b>no</b>");
  await page.press("#search", "Enter");
  await page.waitForSelector("#view p.bad");
  assert.equal(await page.locator("#view b").count(), 0);
  page.errors = page.errors.filter((text) => !text.includes("400")); // the browser tells of every refusal
  await page.fill("#search", "");
  await page.press("#search", "Enter");
  await rows.nth(1).waitFor();
  await page.selectOption("#order", "value");
  await page.waitForFunction(() => {
    const values = [...document.querySelectorAll('tbody td[data-label="received"]')].map((cell) => Number(cell.textContent.replace(/\D/g, "")));
    return values.length > 1 && values.every((value, at) => at === 0 || values[at - 1] >= value);
  });
  assert.deepEqual(page.errors, []);
  await context.close();
});

test("one who may settles a channel, after a question", { timeout: 120_000 }, async () => {
  const { context, page } = await visit(SETTLE);
  await open(page, "channels");
  await page.click("tbody a");
  await page.click("text=Settle now");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  assert.match(await page.textContent("#view h1"), /open/);
  await page.click("text=Settle now");
  await page.click("dialog button.main");
  await page.waitForFunction(() => /settled/.test(document.querySelector("#view h1").textContent), null, { timeout: PATIENCE });
  assert.match(await page.textContent("#view"), /a byte/);
  assert.deepEqual(page.errors, []);
  await context.close();
});

test("what somebody named stays text", { timeout: 120_000 }, async () => {
  const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
  const { context, page } = await visit(STEER);
  await page.route("**/operator/v1/status", async (route) => {
    const answer = await route.fetch();
    const content = await answer.json();
    await route.fulfill({ response: answer, json: { ...content, machine: hostile, network: hostile } });
  });
  await page.route("**/operator/v1/trouble", async (route) => {
    const answer = await route.fetch();
    const one = { code: hostile, since_at: 1, is_urgent: true, what: hostile, do: hostile, see: hostile };
    await route.fulfill({ response: answer, json: { trouble: [one] } });
  });
  await page.click("text=Freeze opens");
  await page.fill("#why", hostile);
  await page.click("dialog button.main");
  await page.waitForSelector("q");
  assert.equal(await page.textContent("q"), hostile);
  await page.waitForFunction((name) => document.querySelector("#name").textContent.includes(name), hostile);
  await page.click('#views a[href="#/trouble"]');
  await page.waitForFunction((text) => document.querySelector("#view h2")?.textContent === text, hostile);
  assert.equal(await page.locator("#view img, #view script, #top img, #top script").count(), 0);
  assert.ok(!(await page.title()).includes("owned"));
  await page.click('#views a[href="#/now"]');
  await page.click("text=Let channels open");
  await page.click("dialog button.main");
  await page.waitForSelector("text=Freeze opens");
  assert.deepEqual(page.errors, []);
  await context.close();
});

test("a server that is away takes nothing off the page, and a token that is bad shows nothing", { timeout: 120_000 }, async () => {
  const { context, page } = await visit(WATCH);
  await open(page, "money");
  const before = await page.textContent("#view h1 + dl dd");
  await page.route("**/operator/v1/**", (route) => route.abort());
  await page.waitForSelector("#away:not([hidden])");
  assert.match(await page.textContent("#away"), /does not answer\. What is shown was last seen at/);
  assert.equal((await page.textContent("#view h1 + dl dd")).length, before.length);
  await page.unroute("**/operator/v1/**");
  await page.waitForSelector("#away", { state: "hidden" });
  assert.notEqual(await page.evaluate(() => sessionStorage.length), 0);
  await page.click("#sign-out");
  assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]), [0, 0, ""]);
  assert.equal(await page.textContent("#view"), "");
  await page.fill("#token", "pct_wrong");
  await page.press("#token", "Enter");
  await page.waitForSelector("#sign-in-problem:not([hidden])");
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await context.close();
});

test("the browser runs nothing that is not a file of the page", { timeout: 60_000 }, async () => {
  const { context, page } = await visit("");
  const broken = await page.evaluate(async () => {
    const seen = [];
    addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
    const script = document.createElement("script");
    try {
      script.textContent = "document.title = 'owned'";
      document.body.append(script);
    } catch {
      seen.push("refused script");
    }
    try {
      document.body.insertAdjacentHTML("beforeend", "<b>x</b>");
    } catch {
      seen.push("refused markup");
    }
    const frame = document.createElement("img");
    frame.src = "https://elsewhere.invalid/x.png";
    document.body.append(frame);
    await new Promise((done) => setTimeout(done, 500));
    return { seen, title: document.title };
  });
  assert.equal(broken.title, "paychan");
  assert.ok(broken.seen.includes("refused markup") && broken.seen.includes("img-src"), broken.seen.join());
  await context.close();
});

/** Return what can be used and has no name. */
function nameless() {
  return [...document.querySelectorAll("a, button, input, select, svg[role=img], table")]
    .filter((one) => one.checkVisibility())
    .filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length))
    .map((one) => one.outerHTML.slice(0, 80));
}
