/** Aim: a payer that is killed at any moment goes on by itself, pays for nothing twice, and its books and the server's agree.
 * Method: a buying process over the example shop in debug mode, kill -9 at random moments; purchases are counted on all three
 * sides. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { debugFund, Payer } from "../../dist/index.js";
import { FileStore } from "../../dist/store/file.js";

const SHOP = process.env.PAYCHAN_SHOP_URL;
const headers = { Authorization: `Bearer ${process.env.PAYCHAN_SELL_TOKEN}` };
const KILLS = Number(process.env.PAYCHAN_KILLS ?? 12);
const PRICE = 5;

/** Run a buyer until a random moment after its first purchase or, every third time, at any moment; return how many it got. */
async function buyAndDie(directory, isEarly) {
  const child = spawn(process.execPath, [fileURLToPath(new URL("buyer.js", import.meta.url)), directory, SHOP], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  let begun;
  const first = new Promise((resolve) => (begun = resolve));
  child.stdout.on("data", (chunk) => ((output += chunk), begun()));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  if (!isEarly) await first;
  await new Promise((resolve) => setTimeout(resolve, Math.random() * (isEarly ? 600 : 120)));
  child.kill("SIGKILL");
  await ended;
  const lines = output.split("\n").slice(0, -1);
  assert.deepEqual(
    [...new Set(lines)].filter((line) => line !== "200"),
    [],
  );
  return lines.length;
}

test("kill -9 at any moment", { timeout: 300_000 }, async () => {
  const directory = mkdtempSync(join(tmpdir(), "purse-"));
  let got = 0;
  for (let kill = 0; kill < KILLS; kill += 1) got += await buyAndDie(directory, kill % 3 === 2);
  const store = FileStore.open(directory);
  const payer = await Payer.open({
    store,
    network: "test",
    budgets: { request: 100, day: 10_000_000, open: 200_000 },
    fund: debugFund,
  });
  assert.equal((await payer.fetch(`${SHOP}/articles/change`)).status, 200);
  got += 1;
  const channels = await payer.channels();
  assert.equal(channels.length, 1, "a killed payer finds its channel again");
  const [view] = channels;
  const look = await (
    await fetch(`${process.env.PAYCHAN_SELL_URL}/v1/sell/channels/${view.name.replace(":", "/")}`, { headers })
  ).json();
  assert.deepEqual([view.signed, view.accepted, view.isPending], [look.received, look.received, false]);
  const bought = (look.spent - view.need.openPrice) / PRICE;
  assert.ok(Number.isInteger(bought) && bought >= got && bought <= got + KILLS, `${bought} charged, ${got} got, ${KILLS} kills`);
  assert.ok(look.credit <= PRICE * KILLS);
  store.close();
  rmSync(directory, { recursive: true });
});
