/** Aim: the payer buys from the real middleware over a real system in debug mode, and its books, the server's and the goods agree.
 * Method: the example shop (PAYCHAN_SHOP_URL), its channel server's sellers' door (PAYCHAN_SELL_URL, PAYCHAN_SELL_TOKEN). */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";

import { Mppx } from "mppx/client";

import {
  debugFund,
  encodePayment,
  findChallenges,
  findReceipt,
  Payer,
  recordTerms,
  renderCredential,
  signPayment,
  voucherPayload,
  Wallet,
  findNetwork,
} from "../../dist/index.js";
import { bitcoin } from "../../dist/sdk/mppx.js";
import { FileStore } from "../../dist/store/file.js";

const SHOP = process.env.PAYCHAN_SHOP_URL;
const SELL = process.env.PAYCHAN_SELL_URL;
const headers = { Authorization: `Bearer ${process.env.PAYCHAN_SELL_TOKEN}` };
const PRICE = 5;
const BUDGETS = { request: 100, day: 10_000_000, open: 200_000 };

let directory, store, payer, requests;

const counting = (input, init) => {
  requests.push(new Request(input, init));
  return fetch(input, init);
};

async function open(settings = {}) {
  store = FileStore.open(directory);
  payer = await Payer.open({ store, network: "test", budgets: BUDGETS, fund: debugFund, fetch: counting, ...settings });
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "purse-"));
  await open();
});

beforeEach(() => {
  requests = [];
});

after(() => {
  store.close();
  rmSync(directory, { recursive: true });
});

const buy = (name = "promise") => payer.fetch(`${SHOP}/articles/${name}`);
const view = async (number = 0) => (await payer.channels())[number];

async function look(number = 0) {
  const { name } = await view(number);
  return (await fetch(`${SELL}/v1/sell/channels/${name.replace(":", "/")}`, { headers })).json();
}

async function check() {
  const [mine, theirs] = [await view(), await look()];
  assert.deepEqual(
    [mine.signed, mine.accepted, mine.isPending, mine.deposit],
    [theirs.received, theirs.received, false, theirs.funding_value],
  );
  return theirs;
}

test("an article is opened for and bought in two round trips, every other in one, and the books agree", async () => {
  const answer = await buy();
  assert.equal(answer.status, 200);
  assert.match((await answer.json()).text, /half-signed/);
  assert.equal(requests.length, 2);
  const receipt = findReceipt(answer.headers);
  assert.equal(receipt.spent, receipt.accepted);
  for (const name of ["smallest", "change", "promise"]) assert.equal((await buy(name)).status, 200);
  assert.equal(requests.length, 5);
  const { spent, received } = await check();
  assert.equal(spent, receipt.spent + 3 * PRICE);
  assert.equal(received, spent);
});

test("what cannot be had is not paid for", async () => {
  const { spent } = await check();
  assert.equal((await buy("nothing")).status, 404);
  assert.equal((await look()).spent, spent);
  assert.equal((await buy()).status, 200);
  const after = await check();
  assert.deepEqual([after.spent, after.credit], [spent + PRICE, 0]);
});

test("ten at once are ten purchases, one after the other", async () => {
  const { spent } = await check();
  const answers = await Promise.all(Array.from({ length: 10 }, () => buy("change")));
  assert.deepEqual(
    answers.map((answer) => answer.status),
    Array(10).fill(200),
  );
  assert.equal((await check()).spent, spent + 10 * PRICE);
});

test("a lost answer is asked for again and costs once", async () => {
  const { spent } = await check();
  let isLost = false;
  const lossy = async (input, init) => {
    const answer = await counting(input, init);
    if (!new Headers(init?.headers).has("Authorization") || isLost) return answer;
    isLost = true;
    throw new TypeError("the connection broke");
  };
  store.close();
  await open({ fetch: lossy });
  assert.equal((await buy()).status, 200);
  assert.ok(isLost);
  assert.equal((await check()).spent, spent + PRICE);
  store.close();
  await open();
});

test("forged, replayed and stale payments, and a cheap challenge for something dear, buy nothing", async () => {
  await buy();
  const { spent } = await check();
  const record = await payer.purse.channel(0);
  const [terms, secret] = [recordTerms(record), Wallet.restore(payer.words).key(findNetwork("test"), 0).secret];
  const stranger = Wallet.create().key(findNetwork("test"), 0).secret;
  const pay = (value, key) => encodePayment(signPayment(terms, terms.fundingValue - value, key));
  const { signed } = await view();
  const unpaid = await fetch(`${SHOP}/articles/promise`);
  const [challenge] = findChallenges(unpaid.headers);
  const [dear] = findChallenges((await fetch(`${SHOP}/tide`)).headers);
  const show = (of, payment, path = "/articles/smallest") =>
    fetch(SHOP + path, {
      headers: { Authorization: renderCredential(of, voucherPayload(terms, payment)), "Idempotency-Key": crypto.randomUUID() },
    });
  for (const [what, answer, type] of [
    ["forged", await show(challenge, pay(signed + PRICE, stranger)), /session\/invalid-signature/],
    ["replayed", await show(challenge, record.signed), /session\/insufficient-balance/],
    ["stale", await show(challenge, pay(signed - PRICE, secret)), /verification-failed/],
    ["another route's challenge", await show(dear, pay(signed + PRICE, secret)), /invalid-challenge/],
    ["too far ahead", await show(challenge, pay(signed + 1000, secret)), /verification-failed/],
  ]) {
    assert.equal(answer.status, 402, what);
    assert.match((await answer.json()).type, type, what);
    assert.ok(findChallenges(answer.headers).length > 0, what);
    assert.equal(answer.headers.get("Payment-Session-Snapshot") !== null, what === "stale", what);
  }
  assert.equal((await look()).spent, spent);
  assert.equal((await buy()).status, 200);
});

test("a payer that lost what it knew asks with a worthless payment and goes on", async () => {
  await buy();
  const path = join(directory, "channel-0.json");
  const early = readFileSync(path, "utf8");
  for (let times = 0; times < 3; times += 1) await buy();
  const { spent } = await check();
  store.close();
  writeFileSync(path, JSON.stringify({ ...JSON.parse(early), isStale: true }));
  await open();
  assert.equal((await buy()).status, 200);
  assert.equal((await check()).spent, spent + PRICE);
  store.close();
  writeFileSync(path, early); // it does not even know that it is old
  await open();
  assert.equal((await buy()).status, 200);
  assert.equal((await check()).spent, spent + 2 * PRICE);
});

test("a stream is paid while it runs, and what was not watched is given back", async () => {
  const { spent } = await check();
  const seen = [];
  let times = 0;
  for await (const event of payer.events(`${SHOP}/tide`, { limit: 50, onPaid: () => (times += 1) })) {
    seen.push(JSON.parse(event.data).second);
    if (seen.length === 7) break;
  }
  assert.deepEqual(seen, [0, 1, 2, 3, 4, 5, 6]);
  assert.equal(times, 1, "five seconds are paid ahead");
  for (let tries = 0; tries < 50 && (await look()).spent !== spent + 7; tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 100));
  const after = await look();
  assert.deepEqual([after.spent - spent, after.credit], [7, 3]);
  assert.equal((await buy()).status, 200);
});

test("a stream costs no more than its limit", async () => {
  const { signed } = await view();
  const events = payer.events(`${SHOP}/tide`, { limit: 7 });
  await assert.rejects(
    async () => {
      for await (const event of events) assert.ok(event.data);
    },
    (error) => error.code === "over_budget",
  );
  assert.ok((await view()).signed - signed <= 7);
  await buy();
});

test("the unmodified client of mppx buys with our method", async () => {
  await buy();
  const { spent } = await check();
  const { method, fetch: ours } = bitcoin(payer);
  const mppx = Mppx.create({ methods: [method], fetch: ours, polyfill: false });
  for (let times = 1; times <= 4; times += 1) {
    const answer = await mppx.fetch(`${SHOP}/articles/smallest`);
    assert.equal(answer.status, 200);
    assert.match((await answer.json()).title, /smallest/);
    assert.equal((await check()).spent, spent + times * PRICE);
  }
});

test("mppx goes on after an answer was lost", async () => {
  let isLost = false;
  const lossy = async (request) => {
    const isPaid = request.headers.has("Authorization");
    const answer = await fetch(request);
    if (!isPaid || isLost) return answer;
    isLost = true;
    throw new TypeError("the connection broke");
  };
  const { spent } = await check();
  const { method, fetch: ours } = bitcoin(payer, lossy);
  const mppx = Mppx.create({ methods: [method], fetch: ours, polyfill: false });
  await assert.rejects(mppx.fetch(`${SHOP}/articles/promise`));
  assert.equal((await mppx.fetch(`${SHOP}/articles/promise`)).status, 200);
  assert.equal((await check()).spent, spent + PRICE, "it was one purchase");
  const bare = Mppx.create({ methods: [bitcoin(payer).method], polyfill: false });
  await assert.rejects(bare.fetch(`${SHOP}/articles/promise`), /must be given the fetch/);
});

test("the channel is closed, the next purchase opens another", async () => {
  const { signed, deposit } = await view();
  const txid = await payer.close(0);
  assert.match(txid, /^[0-9a-f]{64}$/);
  const closed = await view();
  assert.deepEqual([closed.phase, closed.settlement, closed.change], ["over", txid, deposit - signed]);
  await assert.rejects(payer.close(0), (error) => error.code === "refused");
  assert.equal((await buy()).status, 200);
  assert.equal((await payer.channels()).length, 2);
  const refund = await payer.refund(1, 1);
  assert.equal(refund.validAfter, (await view(1)).refundableFrom);
});

test("a channel that the server has closed is replaced within the same fetch", async () => {
  const { name } = await view(1);
  const newest = (await payer.purse.channel(1)).signed;
  const [txid, vout] = name.split(":");
  const closed = await fetch(`${process.env.PAYCHAN_URL}/v1/channels/${txid}/${vout}?payment=${newest}`, { method: "DELETE" });
  assert.equal(closed.status, 202);
  assert.equal((await buy()).status, 200);
  assert.deepEqual(
    (await payer.channels()).map((one) => one.phase),
    ["over", "over", "open"],
  );
});
