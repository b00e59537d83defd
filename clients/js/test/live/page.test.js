/** Aim: a visitor's whole life on the demo page, in a real browser over real processes: make a key, back it up, put coins in, read,
 * watch, close, keep the refund; wide and narrow, light and dark; and after a reload, in another tab, in another browser.
 * Method: the example shop (PAYCHAN_SHOP_URL) in debug mode or on regtest, Chromium (PAYCHAN_CHROMIUM) by playwright.
 * PAYCHAN_SCREENSHOTS: a directory for pictures, if somebody wants to look. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { parseTransaction } from "../../dist/index.js";
import { tooDim } from "./looks.js";

const SHOP = process.env.PAYCHAN_SHOP_URL;
const PICTURES = process.env.PAYCHAN_SCREENSHOTS;
const IS_REGTEST = process.env.PAYCHAN_IS_REGTEST === "yes";
const DESKTOP = { viewport: { width: 1100, height: 900 } };

let browser, files;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.PAYCHAN_CHROMIUM,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  files = mkdtempSync(join(tmpdir(), "page-"));
});

after(async () => {
  await browser.close();
  rmSync(files, { recursive: true });
});

async function visit(options = DESKTOP) {
  const context = await browser.newContext({ ...options, acceptDownloads: true });
  const page = await open(context);
  return { context, page };
}

async function open(context) {
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error.message));
  await page.goto(`${SHOP}/`);
  await page.waitForFunction(() => document.querySelector("#articles .price")?.textContent.includes("sat"));
  return page;
}

async function picture(page, name) {
  await page.evaluate(() => scrollTo(0, 0));
  if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
}

const number = (text) => Number(/[\d\s\u202f]+(?=\u00a0sat)/.exec(text)[0].replace(/\D/g, ""));
const amount = async (page, id) => number(await page.textContent(`#${id}`));

async function makeKey(page) {
  await page.click("#make");
  await page.waitForSelector("#words li");
  const words = (await page.locator("#words li").allTextContents()).join(" ");
  assert.equal(words.split(" ").length, 12);
  return words;
}

async function putCoinsIn(page) {
  await page.click("#fund-begin");
  await page.waitForSelector("#need-qr svg");
  assert.match(await page.getAttribute("#need-qr", "href"), /^bitcoin:2[0-9A-Za-z]+\?amount=0\.00200000$/);
}

async function useTestCoins(page) {
  await page.click("#faucet");
  await page.waitForSelector("#read:not([hidden])", { timeout: 60_000 });
}

async function read(page, at) {
  await page.locator("#articles button").nth(at).click();
  await page.waitForFunction(
    (index) =>
      document.querySelectorAll("#articles .price")[index].textContent === "read" ||
      document.querySelector("#problem").checkVisibility(),
    at,
  );
  assert.equal(await problem(page), "");
  return page.textContent("#article-text");
}

async function download(page, button) {
  const [file] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
  const path = join(files, file.suggestedFilename());
  await file.saveAs(path);
  return readFileSync(path, "utf8");
}

async function problem(page) {
  return (await page.isVisible("#problem")) ? page.textContent("#problem") : "";
}

test("a whole life: key, backup, coins, articles, the tide, close, refund", { timeout: 180_000 }, async () => {
  const { context, page } = await visit();
  await picture(page, "wide-1-beginning");
  await makeKey(page);
  await picture(page, "wide-2-words");
  await page.click("#backed");
  await page.waitForSelector("#words", { state: "hidden" });
  await putCoinsIn(page);
  await picture(page, "wide-3-coins");
  await useTestCoins(page);
  const deposit = await amount(page, "channel-deposit");
  assert.equal(deposit, IS_REGTEST ? 200_000 : 12_345_678_900_000);

  assert.match(await read(page, 0), /half-signed/);
  const opened = await amount(page, "channel-spent");
  await read(page, 1);
  assert.equal(await amount(page, "channel-spent"), opened + 5);
  await page.locator("#articles button").nth(1).click();
  await page.waitForFunction(() => document.querySelector("#article-paid").textContent === "Yours already.");
  assert.equal(await amount(page, "channel-spent"), opened + 5);

  await page.click("#watch-toggle");
  await page.waitForFunction(() => /^([789]|1\d) seconds/.test(document.querySelector("#watch-paid").textContent), null, {
    timeout: 60_000,
  });
  await read(page, 2); // while the stream runs, on the same channel
  await picture(page, "wide-4-goods");
  await page.click("#watch-toggle");
  await page.waitForFunction(() => document.querySelector("#watch-toggle").textContent === "Watch");
  const spent = await amount(page, "channel-spent");
  assert.ok(spent - opened >= 5 + 5 + 10 && spent - opened <= 5 + 5 + 15, `${spent - opened}`);

  const refund = /[0-9a-f]{300,}/.exec(await download(page, "#refund"))[0];
  const back = parseTransaction(refund).outputs;
  assert.ok(back.length === 1 && back[0].value < deposit && back[0].value > deposit * 0.99);
  const backup = await download(page, "#download");
  assert.equal(JSON.parse(backup).words.split(" ").length, 12);

  await page.reload();
  await page.waitForSelector("#read:not([hidden])");
  assert.equal(await amount(page, "channel-spent"), spent);

  const elsewhere = await visit();
  await elsewhere.page.click("#restore-open");
  await elsewhere.page.fill("#restore-text", backup);
  await elsewhere.page.click("#restore button");
  await elsewhere.page.waitForSelector("#read:not([hidden])");
  await read(elsewhere.page, 0);
  assert.deepEqual(elsewhere.page.errors, []);
  await elsewhere.context.close();

  await read(page, 1); // the other browser has paid meanwhile: the shop shows the newest payment, which is ours
  assert.equal(await problem(page), "");
  const change = await amount(page, "channel-change");
  await page.click("#close");
  await page.waitForSelector("#closed:not([hidden])", { timeout: 60_000 });
  assert.equal(await amount(page, "closed-change"), change);
  assert.match(await page.textContent("#closed-txid"), /^[0-9a-f]{64}$/);
  await picture(page, "wide-5-closed");
  assert.deepEqual([await problem(page), page.errors], ["", []]);
  await context.close();
});

for (const [name, options] of [
  ["narrow-light", { viewport: { width: 360, height: 740 }, colorScheme: "light", hasTouch: true }],
  ["narrow-dark", { viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true }],
  ["wide-dark", { ...DESKTOP, colorScheme: "dark" }],
]) {
  test(`it fits and can be read: ${name}`, { timeout: 120_000 }, async () => {
    const { context, page } = await visit(options);
    const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
    await makeKey(page);
    await picture(page, `${name}-2-words`);
    assert.ok(await fits());
    await page.click("#backed");
    await putCoinsIn(page);
    await picture(page, `${name}-3-coins`);
    assert.ok(await fits());
    await useTestCoins(page);
    await read(page, 0);
    await page.click("#watch-toggle");
    await page.waitForFunction(() => /^\d+ second/.test(document.querySelector("#watch-paid").textContent));
    await picture(page, `${name}-4-goods`);
    assert.ok(await fits());
    const dim = await page.evaluate(tooDim, "");
    assert.deepEqual(dim, []);
    const small = await page.evaluate(() =>
      [...document.querySelectorAll("button")]
        .filter((one) => one.checkVisibility() && one.offsetHeight < 44)
        .map((one) => one.id),
    );
    assert.deepEqual(small, []);
    assert.deepEqual(page.errors, []);
    await context.close();
  });
}

test("wrong words and a wrong transaction are told, and change nothing", { timeout: 60_000 }, async () => {
  const { context, page } = await visit();
  await page.click("#restore-open");
  for (const text of ["one two three", '{"version": 1}', "abandon ".repeat(12)]) {
    await page.fill("#restore-text", text);
    await page.click("#restore button");
    await page.waitForSelector("#problem:not([hidden])");
    assert.ok(await page.isVisible("#make"));
  }
  const words = await makeKey(page);
  await page.click("#backed");
  await putCoinsIn(page);
  await page.click("summary");
  for (const text of ["00", "no transaction", "ff".repeat(200)]) {
    await page.fill("#funded-text", text);
    await page.click("#funded button");
    await page.waitForSelector("#problem:not([hidden])");
    assert.ok(await page.isVisible("#need-qr"));
  }
  await useTestCoins(page);
  assert.equal(await problem(page), "");
  await page.click("#show-words");
  await page.waitForSelector("#words li");
  assert.equal((await page.locator("#words li").allTextContents()).join(" "), words);
  await context.close();
});

test("two tabs of one browser share the key and the channel", { timeout: 60_000 }, async () => {
  const { context, page } = await visit();
  await makeKey(page);
  await page.click("#backed");
  await putCoinsIn(page);
  await useTestCoins(page);
  await read(page, 0);
  const other = await open(context);
  await other.waitForSelector("#read:not([hidden])");
  const readRest = async (tab) => (await read(tab, 1), await read(tab, 2));
  await Promise.all([readRest(page), readRest(other)]);
  await page.reload();
  await page.waitForSelector("#read:not([hidden])");
  const [spent] = [await amount(page, "channel-spent")];
  await other.reload();
  await other.waitForSelector("#read:not([hidden])");
  assert.equal(await amount(other, "channel-spent"), spent);
  assert.deepEqual([page.errors, other.errors, await problem(page)], [[], [], ""]);
  await context.close();
});
