/** Aim: paying is never interrupted by an open, at most one channel is ahead, nobody is asked twice for it, and what was left
 * comes back. Method: small channels at a shop on this machine, who pays for them works, fails or is silent; the files are
 * judged. */

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";

import { FileStore } from "../dist/store/file.js";
import { debugFund, Payer } from "../dist/index.js";
import { runsLow } from "../dist/payer/ahead.js";
import { OPEN_PRICE, Shop } from "./shop.js";
import { readVectors } from "./vectors.js";

const PRICE = 50;
const DUST = 700;
const DAY = 86_400;
const MARGIN = 600;
const BUDGETS = { request: 1_000, day: 1_000_000 };
/** A channel for 8 purchases; after 4 less than a tenth of its value is left. */
const LAST = 8;
const LOW_AFTER = 4;
const VALUE = OPEN_PRICE + DUST + LAST * PRICE;

const code = (expected) => (error) => (assert.equal(error.code, expected, error.stack), true);

let shop, directory, store, payer, now, asked, answer;

/** Pays for channels as `answer` says, and notes what it was asked for. */
const fund = async (need) => {
  asked.push(need);
  return answer(need);
};
const pay = async (need) => ({ ...(await debugFund(need)), value: VALUE });
const never = () => new Promise(() => {});

beforeEach(async () => {
  shop = await Shop.open();
  [shop.price, shop.fundingValue] = [PRICE, VALUE];
  directory = mkdtempSync(join(tmpdir(), "purse-"));
  [now, asked, answer] = [1_800_000_000, [], pay];
  await open();
});

afterEach(() => {
  shop.close();
  store.close();
  rmSync(directory, { recursive: true });
});

async function open(settings = {}) {
  store?.close();
  store = FileStore.open(directory);
  const fixed = { store, network: "test", budgets: BUDGETS, fund, patience: 300, now: () => now };
  payer = await Payer.open({ ...fixed, ...settings });
}

const stored = (number) => JSON.parse(readFileSync(join(directory, `channel-${number}.json`), "utf8"));
const made = () => readdirSync(directory).filter((name) => /^channel-\d+\.json$/.test(name)).length;
const rows = (action) => shop.seen.filter((row) => row.payload?.action === action);

async function buy(times = 1, path = "/news") {
  for (let time = 0; time < times; time += 1) assert.equal((await payer.fetch(shop.url + path)).status, 200);
}

/** Wait until what goes on behind the purchases has come to rest: it waits in the same line. */
async function rest() {
  await payer.purse.store.exclusively(`server ${new URL(shop.url).origin}`, async () => undefined);
  await new Promise((resolve) => setTimeout(resolve, 20));
}

async function until(isSo) {
  for (let tries = 0; tries < 1000; tries += 1) {
    if (isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail("it never was so");
}

test("a channel runs low at the figures that both purses share", () => {
  for (const row of readVectors("low-channels.json")) {
    assert.equal(runsLow(row.left, row.value, row.cost, row.time_left, row.life), row.is_low, row.what);
  }
});

test("the next channel is paid for while the old one pays, and is opened by the purchase that needs it", async () => {
  const times = [];
  for (let bought = 1; bought <= 2 * LAST; bought += 1) {
    await buy();
    await rest();
    times.push(made());
  }
  assert.deepEqual([times[LOW_AFTER - 2], times[LOW_AFTER - 1], times[LAST - 1], times[LAST]], [1, 2, 2, 2]);
  assert.deepEqual([times[LAST + LOW_AFTER - 2], times[LAST + LOW_AFTER - 1]], [2, 3], "and so on, one ahead at most");
  await until(() => asked.length === 3);
  assert.equal(rows("open").length, 2);
  assert.equal(rows("open").length + rows("voucher").length, 2 * LAST, "none was repeated");
  for (const channel of shop.channels.values()) assert.equal(channel.spent, OPEN_PRICE + LAST * PRICE);
});

test("the next channel is paid for before the old one ends, and the old one pays until then", async () => {
  await buy();
  const old = stored(0);
  now = old.expTime - old.settlementPeriod - MARGIN - 0.7 * DAY;
  await buy();
  await rest();
  assert.equal(asked.length, 1);
  now += 1;
  await buy();
  await until(() => asked.length === 2 && stored(1).phase === "funded");
  now = old.expTime - old.settlementPeriod - MARGIN - 1;
  await buy();
  assert.deepEqual([rows("open").length, stored(1).signed], [1, null]);
  now += 1;
  const { signed } = stored(0);
  await buy();
  assert.deepEqual([rows("open").length, stored(0).signed, stored(1).phase], [2, signed, "open"]);
});

test("a server that takes payments less long than was agreed is believed", async () => {
  await buy();
  const old = stored(0);
  shop.details = { settlementPeriod: old.settlementPeriod + 3_600 };
  await payer.http.ask(`${shop.url}/news`, "GET");
  now = old.expTime - old.settlementPeriod - 3_600 - MARGIN;
  const { signed } = old;
  await open(); // with no challenge in mind
  await buy();
  assert.deepEqual([stored(0).signed, stored(1).phase], [signed, "open"]);
});

test("while somebody is asked the time of a channel may end: nothing is signed on it then", async () => {
  await buy();
  const old = stored(0);
  const late = () => ((now = old.expTime - old.settlementPeriod - MARGIN), true);
  await open({ budgets: { ...BUDGETS, request: PRICE - 1 }, ask: late });
  await buy();
  assert.equal(stored(0).signed, old.signed);
  assert.equal(stored(1).phase, "open");
  await assert.rejects(
    payer.http.voucher(
      `${shop.url}/news`,
      (record) => record.number === 0,
      (record) => record.spent + PRICE,
    ),
    code("refused"),
  );
  assert.equal(stored(0).signed, old.signed, "nor for a stream that has begun on it");
});

test("what is left of a channel does not do for several units: another channel pays, in the same fetch", async () => {
  await buy(LAST - 2);
  shop.units = 3;
  await buy();
  assert.deepEqual([shop.channels.size, [...shop.channels.values()][1].spent], [2, OPEN_PRICE + 3 * PRICE]);
});

test("who cannot pay for the next channel is asked once ahead, and again when it is needed, for the same one", async () => {
  await buy();
  answer = async () => {
    throw new Error("the wallet is empty");
  };
  await buy(LAST - 1);
  await until(() => asked.length > 1);
  assert.equal(asked.length, 2, "five purchases of a low channel ask once");
  let fail;
  answer = () => new Promise((_, reject) => (fail = () => reject(new Error("the wallet is empty still"))));
  const waiting = [1, 2, 3].map(() => assert.rejects(payer.fetch(`${shop.url}/news`), /empty still/));
  await until(() => asked.length === 3);
  await rest();
  fail();
  await rest();
  assert.equal(asked.length, 3, "three that need it ask once");
  await Promise.all(waiting);
  answer = pay;
  await buy();
  assert.deepEqual(
    asked.map((need) => need.channel),
    [0, 1, 1, 1],
  );
  assert.deepEqual([asked[1].address, made()], [asked[3].address, 2]);
});

test("who never answers holds up nothing that the old channel can pay, and is asked once", async () => {
  let reply;
  await buy();
  answer = () => new Promise((resolve) => (reply = resolve));
  await buy(LAST - 2);
  shop.price = 4 * PRICE;
  await open({ budgets: BUDGETS });
  const dear = payer.fetch(`${shop.url}/dear`); // does not fit any more
  await until(() => asked.length === 3);
  shop.price = PRICE;
  await payer.fetch(`${shop.url}/news`);
  const leave = new AbortController();
  const given = payer.fetch(`${shop.url}/news`, { signal: leave.signal });
  await rest();
  leave.abort();
  await assert.rejects(given, { name: "AbortError" });
  const both = Promise.all([dear, payer.fetch(`${shop.url}/news`)]);
  await rest();
  assert.equal(asked.length, 3, "once by this process, which did not ask ahead");
  reply(await pay(asked[2]));
  for (const one of await both) assert.equal(one.status, 200);
  assert.deepEqual([made(), asked[1].address], [2, asked[2].address]);
});

test("a channel's key is on the disk before anybody is asked to pay to it, and after a crash it is the same", async () => {
  await buy();
  let seen;
  answer = (need) => ((seen = { number: need.channel, ...stored(need.channel) }), never());
  await buy(LOW_AFTER - 1);
  await until(() => seen);
  const { clientPubkey, expTime } = asked[1];
  assert.deepEqual([seen.number, seen.phase, seen.clientPubkey, seen.expTime], [1, "unfunded", clientPubkey, expTime]);
  await open(); // the process died while somebody paid
  answer = pay;
  await buy(LAST - LOW_AFTER);
  await rest();
  assert.equal(asked.length, 2, "not asked again before it is needed");
  await buy();
  assert.deepEqual([asked.length, made()], [3, 2]);
  assert.deepEqual(asked[2], asked[1]);
  await open(); // and after it was paid, and not opened
  assert.equal(stored(1).phase, "open");
});

test("a channel that was paid for ahead is found again after a crash, and not paid for again", async () => {
  await buy(LOW_AFTER);
  await until(() => asked.length === 2 && stored(1).phase === "funded");
  const { funding } = stored(1);
  await open();
  await buy(LAST - LOW_AFTER + 1);
  assert.deepEqual([asked.length, made(), stored(1).funding, stored(1).phase], [2, 2, funding, "open"]);
});

test("without somebody who pays, the page is told once, ahead, and what it is told holds when it is needed", async () => {
  await buy();
  const told = [];
  const onLow = async (need) => {
    told.push(need);
    throw new Error("the page is in trouble");
  };
  await open({ fund: undefined, onLow });
  await buy(LAST - 1);
  await rest();
  assert.equal(told.length, 1, "by the time that the line is free");
  const needed = await payer.fetch(`${shop.url}/news`).catch((error) => (code("needs_funding")(error), error));
  assert.deepEqual([needed.need, made()], [told[0], 2]);
  await payer.funded(needed.channel, await pay(told[0]));
  await payer.funded(needed.channel, { txid: "00".repeat(32), vout: 0, value: 5 }); // too late: what was noted first stays
  await buy();
  assert.deepEqual([stored(1).phase, stored(1).funding.value], ["open", VALUE]);
});

test("with nobody to pay and nobody to tell, no channel is made ahead", async () => {
  await buy();
  await open({ fund: undefined });
  await buy(LAST - 1);
  await rest();
  assert.equal(made(), 1);
});

test("purchases at the same time make one channel ahead", async () => {
  await buy(LOW_AFTER - 1);
  await Promise.all([1, 2, 3, 4].map((at) => buy(1, `/page/${at}`)));
  await until(() => asked.length > 1);
  assert.deepEqual([asked.length, made()], [2, 2]);
});

test("nothing is locked up beyond the budgets: not ahead, where nobody is asked, and not for a first channel", async () => {
  await buy();
  const day = { ...BUDGETS, day: OPEN_PRICE + LAST * PRICE };
  await open({ budgets: day, ask: () => assert.fail("nobody needs it yet") });
  await buy(LAST - 1);
  await rest();
  assert.deepEqual([asked.length, made()], [1, 1]);
  await open({ budgets: day });
  await assert.rejects(payer.fetch(`${shop.url}/news`), code("over_budget"));
  assert.deepEqual([asked.length, made()], [1, 1]);
  const over = [];
  await open({ budgets: day, ask: (purchase) => over.push(purchase.over) });
  await buy();
  assert.ok(over.length > 0 && over.flat().every((name) => ["day", "hour", "host"].includes(name)), String(over));
  assert.equal(made(), 2);
});

test("while the next channel's coins are not confirmed the old one pays; then that is told, and it goes on", async () => {
  let isConfirmed = false;
  await buy();
  shop.script = async (row) =>
    row.payload?.action === "open" && !isConfirmed
      ? shop.refuse("payment-action-required", {}, { "Retry-After": "0" }, "funding_unconfirmed")
      : null;
  await buy(LAST - 1);
  await assert.rejects(payer.fetch(`${shop.url}/news`), code("funding_pending"));
  isConfirmed = true;
  await buy();
  assert.deepEqual([asked.length, made(), stored(1).phase], [2, 2, "open"]);
});

test("what was left behind is closed once another channel has taken over, with its newest payment, and once", async () => {
  await buy(LAST);
  const { accepted } = stored(0);
  assert.equal(rows("close").length, 0);
  shop.script = async (row) => (row.payload?.action === "close" ? { status: 503 } : null);
  await buy(2);
  await until(() => rows("close").length > 0);
  await buy(2);
  await rest();
  assert.deepEqual([rows("close").length, stored(0).phase], [1, "open"], "a server that does not answer is not asked again");
  shop.script = async () => null;
  await open();
  await buy();
  await until(() => stored(0).phase === "over");
  assert.equal(stored(0).settlement, "ab".repeat(32));
  assert.deepEqual(
    rows("close").map((row) => row.payload.payment),
    [accepted, accepted],
  );
});

test("what can still pay, is pending, or may have a stream on it, is not closed", async () => {
  await buy(2);
  shop.units = LAST - 1;
  await buy(1, "/dear"); // too much for what is left, which is nearly all
  await rest();
  shop.units = 1;
  assert.equal(rows("close").length, 0);
  await buy(LAST - 2); // the old one first, to its end
  const [first] = shop.channels.values();
  assert.equal(first.spent, OPEN_PRICE + LAST * PRICE);
  payer.http.streams = 1;
  await buy();
  await rest();
  assert.equal(rows("close").length, 0);
  payer.http.streams = 0;
  await buy();
  await until(() => rows("close").length === 1);
});

for (const [what, lose] of [
  ["purchase", () => payer.fetch(`${shop.url}/lost`)],
  [
    "stream's payment",
    () =>
      payer.http.voucher(
        `${shop.url}/lost`,
        (record) => record.number === 0,
        (record) => record.spent + PRICE,
      ),
  ],
]) {
  test(`a channel is not closed while its last ${what} has no answer`, async () => {
    await buy(LAST - 1);
    shop.script = async (row) => (row.payload && row.path === "/lost" ? "drop" : null);
    await assert.rejects(lose(), code("outcome_unknown"));
    const pending = stored(0);
    assert.notEqual(pending.signed, pending.accepted);
    now = pending.expTime - pending.settlementPeriod - MARGIN;
    await buy();
    await rest();
    assert.equal(rows("close").length, 0);
    assert.deepEqual([stored(0).signed, stored(0).purchase], [pending.signed, pending.purchase]);
  });
}
