/** Aim: a real server opens the channel that was paid for ahead, and settles the one that was left. Method: the example shop in
 * debug mode; the payer's clock goes to the end of its channel. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { debugFund, Payer } from "../../dist/index.js";
import { MARGIN_SECONDS } from "../../dist/payer/ahead.js";
import { FileStore } from "../../dist/store/file.js";

const headers = { Authorization: `Bearer ${process.env.PAYCHAN_SELL_TOKEN}` };
const PRICE = 5;
const TENTH_OF_A_WEEK = 60_480;

async function until(isSo) {
  for (let tries = 0; tries < 1000; tries += 1) {
    if (await isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail("it never was so");
}

test("the next channel is paid for ahead, opened when the old one ends, and the old one is settled", async () => {
  const directory = mkdtempSync(join(tmpdir(), "purse-"));
  const store = FileStore.open(directory);
  const asked = [];
  let now = Math.floor(Date.now() / 1000);
  const payer = await Payer.open({
    store,
    network: "test",
    budgets: { request: 100, day: 10_000_000, open: 200_000 },
    fund: (need) => (asked.push(need.channel), debugFund(need)),
    now: () => now,
  });
  const view = async (number) => (await payer.channels())[number];
  const buy = async () => assert.equal((await payer.fetch(`${process.env.PAYCHAN_SHOP_URL}/articles/change`)).status, 200);
  const look = async ({ name }) =>
    (await fetch(`${process.env.PAYCHAN_SELL_URL}/v1/sell/channels/${name.replace(":", "/")}`, { headers })).json();

  await buy();
  const end = (await view(0)).paymentsEnd - MARGIN_SECONDS;
  now = end - TENTH_OF_A_WEEK + 1;
  await buy();
  await until(async () => (await view(1))?.phase === "funded");
  await buy();
  const [old, next] = await payer.channels();
  assert.deepEqual([asked, old.signed - old.need.openPrice, next.signed], [[0, 1], 3 * PRICE, 0]);
  now = end;
  await buy();
  await until(async () => (await view(0)).phase === "over");
  await buy();
  const [left, used] = await payer.channels();
  assert.match(left.settlement, /^[0-9a-f]{64}$/);
  assert.deepEqual([asked, left.signed, left.change], [[0, 1], old.signed, left.deposit - old.signed]);
  const [theirs, ours] = [await look(left), await look(used)];
  assert.notEqual(theirs.phase, "open");
  assert.deepEqual([theirs.received, ours.received, ours.spent], [left.signed, used.signed, used.need.openPrice + 2 * PRICE]);
  store.close();
  rmSync(directory, { recursive: true });
});
