/** Aim: whatever a server says or does not say, the payer loses no more than it agreed to. Method: a shop that misbehaves by
 * script; the payer's files on the disk are what is judged. */

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open as openFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";

import { FileStore } from "../dist/store/file.js";
import { debugFund, Payer, signPayment, encodePayment, recordTerms, Wallet, findNetwork } from "../dist/index.js";
import { OPEN_PRICE, Shop } from "./shop.js";

const BUDGETS = { request: 50, day: 10_000 };
const code = (expected) => (error) => {
  assert.equal(error.code, expected, error.stack);
  return true;
};

let shop, shops, directory, payer, opened;

/** Open one more shop; it is closed after the test. */
async function another() {
  shops.push(await Shop.open());
  return shops.at(-1);
}

beforeEach(async () => {
  shops = [];
  shop = await another();
  directory = mkdtempSync(join(tmpdir(), "purse-"));
  opened = [];
  payer = await open();
});

afterEach(() => {
  for (const one of shops) one.close();
  for (const store of opened) store.close();
  rmSync(directory, { recursive: true });
});

async function open(settings = {}, where = directory) {
  const store = FileStore.open(where);
  opened.push(store);
  return Payer.open({ store, network: "test", budgets: BUDGETS, fund: debugFund, patience: 1500, ...settings });
}

async function reopen(settings) {
  opened.pop().close();
  payer = await open(settings);
}

const stored = (number = 0) => JSON.parse(readFileSync(join(directory, `channel-${number}.json`), "utf8"));
const buy = (path = "/news", init) => payer.fetch(shop.url + path, init);
const payments = () => shop.seen.flatMap((row) => (row.payload ? [row.payload.payment] : []));
const distinct = (list) => [...new Set(list)];

async function signed(number = 0) {
  return (await payer.channels())[number].signed;
}

test("the first purchase takes two round trips, every other one; neighbours of a resource too", async () => {
  assert.equal(await (await buy()).text(), "goods");
  assert.equal(shop.seen.length, 2);
  for (let more = 1; more <= 3; more += 1) await buy();
  await buy("/other");
  assert.equal(shop.seen.length, 6);
  assert.equal(distinct(payments()).length, 5);
  assert.equal(await signed(), OPEN_PRICE + 5 * 5);
  assert.deepEqual(
    shop.seen.map((row) => row.payload?.action),
    [undefined, "open", "voucher", "voucher", "voucher", "voucher"],
  );
});

test("a payment is on the disk before it is sent", async () => {
  let looked = 0;
  shop.script = async (row) => {
    if (row.payload && stored().signed === row.payload.payment) looked += 1;
    return null;
  };
  for (let times = 0; times < 3; times += 1) await buy();
  assert.deepEqual([looked, payments().length], [3, 3]);
});

test("what is written is synced, the file and its directory, before the payment is sent", async () => {
  await buy();
  const probe = await openFile(join(directory, "wallet.json"));
  const handle = Object.getPrototypeOf(probe);
  const { sync } = handle;
  let synced = 0;
  handle.sync = async function count() {
    await sync.call(this);
    synced += 1;
  };
  const counts = [];
  shop.script = async (row) => (row.payload ? (counts.push(synced), null) : null);
  try {
    await buy();
  } finally {
    handle.sync = sync;
    await probe.close();
  }
  assert.ok(counts.length === 1 && counts[0] >= 2, String(counts));
});

test("without an answer, or with 503, the same payment is sent again under the same key, and buys once", async () => {
  await buy();
  let losses = 0;
  shop.script = async (row) => {
    if (!row.payload || losses >= 3) return null;
    losses += 1;
    if (losses === 1) return "drop";
    if (losses === 2) shop.judge(row); // it counts, but the answer is lost
    return losses === 2 ? "drop" : { status: 503, headers: { "Retry-After": "0" } };
  };
  const before = shop.seen.length;
  assert.equal(await (await buy("/news", { method: "POST", body: "question" })).text(), "goods");
  const rows = shop.seen.slice(before).filter((row) => row.payload);
  assert.ok(rows.length >= 3);
  assert.equal(distinct(rows.map((row) => row.payload.payment)).length, 1);
  assert.equal(distinct(rows.map((row) => row.key)).length, 1);
  assert.deepEqual(distinct(rows.map((row) => row.body.toString())), ["question"]);
  assert.equal([...shop.channels.values()][0].spent, OPEN_PRICE + 10);
});

test("an unknown outcome is told, survives the process, and the same request is the same purchase", async () => {
  await buy();
  shop.script = async () => ({ status: 503 });
  await assert.rejects(buy("/news?2"), code("outcome_unknown"));
  const [pending, key] = [stored().signed, shop.seen.at(-1).key];
  assert.notEqual(stored().accepted, pending);
  await reopen();
  shop.script = async () => null;
  await buy("/news?2");
  assert.deepEqual([shop.seen.at(-1).payload.payment, shop.seen.at(-1).key], [pending, key]);
  assert.equal(stored().accepted, pending);
  assert.equal(await signed(), OPEN_PRICE + 10);
});

test("while an outcome is unknown nothing larger is signed: another request shows the same payment", async () => {
  await buy();
  shop.script = async (row) => (row.path === "/lost" && row.payload ? "drop" : null);
  await assert.rejects(buy("/lost"), code("outcome_unknown"));
  const pending = stored().signed;
  const [lostKey] = shop.seen.slice(-1).map((row) => row.key);
  await buy("/found");
  assert.equal(shop.seen.at(-1).payload.payment, pending);
  assert.notEqual(shop.seen.at(-1).key, lostKey);
  assert.equal(await signed(), OPEN_PRICE + 10);
});

test("a purchase out of the credit whose answer is lost is not bought again under another key", async () => {
  await buy();
  shop.channels.values().next().value.spent -= 5; // the handler had failed, and the shop gave it back
  shop.script = async (row) =>
    row.payload
      ? {
          status: 418,
          headers: { "Content-Type": "application/problem+json" },
          body: JSON.stringify({ acceptedCumulative: String(OPEN_PRICE + 5), spent: String(OPEN_PRICE) }),
        }
      : null;
  assert.equal((await buy("/teapot")).status, 418);
  assert.equal((await payer.channels())[0].credit, 5);
  shop.script = async () => "drop";
  await assert.rejects(buy("/news"), code("outcome_unknown"));
  const { key } = shop.seen.at(-1);
  shop.script = async () => null;
  await buy("/news");
  assert.equal(shop.seen.at(-1).key, key);
  await buy("/news");
  assert.notEqual(shop.seen.at(-1).key, key);
});

test("credit is used before anything is signed", async () => {
  await buy();
  shop.channels.values().next().value.spent -= 5;
  shop.script = async (row) =>
    row.path === "/look" ? { status: 200, headers: { "Payment-Receipt": shop.receipt(row.payload.channelId) } } : null;
  const before = await signed();
  await buy("/look");
  shop.script = async () => null;
  const after = await signed();
  await buy("/news");
  assert.equal(await signed(), after, "nothing new was signed");
  assert.ok(after - before <= 5);
});

test("a server that goes on asking for more gets no more than its challenge and the budget say", async () => {
  await buy();
  const before = await signed();
  let asked = before;
  shop.script = async () =>
    shop.refuse("session/insufficient-balance", { requiredCumulative: String((asked += 40)), spent: String(before) });
  await assert.rejects(buy());
  assert.ok((await signed()) - before <= 50, "the budget of one request");
  shop.script = async () =>
    shop.refuse("session/insufficient-balance", { requiredCumulative: String(before + 1000), spent: String(before) });
  await assert.rejects(buy(), code("misbehaved"));
  assert.ok((await signed()) - before <= 50);
});

test("two copies of a wallet may sign the same payment: the price is paid once more, and not always", async () => {
  await buy();
  shop.channels.values().next().value.bought = "by the other copy";
  const value = await signed();
  let isUsed = true;
  shop.script = async (row) => {
    if (!row.payload || !isUsed) return null;
    isUsed = false;
    const channel = shop.channels.get(row.payload.channelId);
    Object.assign(channel, { accepted: value + 5, spent: value + 5, newest: row.payload.payment, bought: "by the other copy" });
    return null;
  };
  assert.equal((await buy()).status, 200);
  assert.equal(await signed(), value + 10);
  shop.script = async (row) => {
    if (!row.payload) return null;
    const told = String(stored().funding.value - Number(Buffer.from(row.payload.payment, "base64url").readBigUInt64LE(0)));
    return shop.refuse("session/insufficient-balance", {
      acceptedCumulative: told,
      spent: told,
      requiredCumulative: String(Number(told) + 5),
    });
  };
  for (let times = 0; times < 4; times += 1) {
    const before = await signed();
    await assert.rejects(buy(), code("misbehaved"));
    assert.ok((await signed()) - before <= 10, "once more, and no more");
  }
  const channels = await payer.channels();
  assert.notEqual(channels[0].hold, "");
  assert.ok(channels[0].signed - value - 10 <= 3 * 10 + 5, `${channels[0].signed - value}`);
});

test("what several units cost is paid, if the budget allows it, and known the next time", async () => {
  shop.units = 4;
  await buy();
  assert.equal(shop.seen.length, 3);
  await buy();
  assert.equal(shop.seen.length, 4);
  assert.equal(await signed(), OPEN_PRICE + 40);
  shop.units = 11;
  await assert.rejects(buy(), code("over_budget"));
  assert.ok((await signed()) <= OPEN_PRICE + 40 + 20);
});

test("a snapshot whose payment is not ours puts the channel on hold for good", async () => {
  await buy();
  const stranger = Wallet.create().key(findNetwork("test"), 0).secret;
  const terms = recordTerms(await payer.purse.channel(0));
  const forged = encodePayment(signPayment(terms, terms.fundingValue - 90_000, stranger));
  const changes = { payment: forged, acceptedCumulative: "90000" };
  shop.script = async (row) =>
    row.payload
      ? shop.refuse(
          "verification-failed",
          {},
          { "Payment-Session-Snapshot": shop.snapshot(row.payload.channelId, changes) },
          "out_of_order",
        )
      : null;
  const before = await signed();
  await assert.rejects(buy(), code("misbehaved"));
  assert.ok((await signed()) - before <= 5);
  assert.notEqual((await payer.channels())[0].hold, "");
  await reopen();
  shop.script = async () => null;
  const frozen = stored().signed;
  await buy();
  assert.equal(stored().signed, frozen);
  assert.equal((await payer.channels()).length, 2, "another channel pays");
});

test("a snapshot of what we signed is adopted, and the price is paid on top of it", async () => {
  await buy();
  const early = readFileSync(join(directory, "channel-0.json"));
  for (let times = 0; times < 4; times += 1) await buy();
  const newest = stored().signed;
  opened.pop().close();
  writeFileSync(join(directory, "channel-0.json"), early);
  payer = await open();
  assert.notEqual(stored().signed, newest);
  await buy();
  assert.equal(await signed(), OPEN_PRICE + 30);
  assert.equal([...shop.channels.values()][0].spent, OPEN_PRICE + 30);
});

test("a receipt that claims more than was signed puts the channel on hold; another channel's is not booked", async () => {
  await buy();
  shop.script = async (row) => ({
    status: 200,
    headers: {
      "Payment-Receipt": shop.receipt(row.payload.channelId, { channelId: `${"00".repeat(32)}:0`, acceptedCumulative: "77777" }),
    },
  });
  await buy();
  assert.equal((await payer.channels())[0].hold, "");
  shop.script = async (row) => ({
    status: 200,
    headers: { "Payment-Receipt": shop.receipt(row.payload.channelId, { acceptedCumulative: "77777" }) },
  });
  await buy();
  assert.notEqual((await payer.channels())[0].hold, "");
});

test("a closed channel is left, and the next one opened; a server that closes all of them is left alone", async () => {
  await buy();
  shop.script = async (row) => (row.payload?.action === "voucher" ? shop.refuse("session/channel-finalized") : null);
  assert.equal((await buy()).status, 200);
  const phases = (await payer.channels()).map((one) => one.phase);
  assert.deepEqual(phases, ["over", "open"]);
  shop.script = async (row) => (row.payload ? shop.refuse("session/channel-finalized") : null);
  await assert.rejects(buy(), code("misbehaved"));
});

test("funding that is not confirmed yet is waited for, then told", async () => {
  let times = 0;
  shop.script = async (row) =>
    row.payload && times++ < 2 ? shop.refuse("payment-action-required", {}, { "Retry-After": "0" }, "funding_unconfirmed") : null;
  assert.equal((await buy()).status, 200);
  assert.equal(distinct(payments()).length, 1);
  shop.script = async (row) =>
    row.payload ? shop.refuse("payment-action-required", {}, { "Retry-After": "0" }, "funding_unconfirmed") : null;
  await assert.rejects(buy(), code("funding_pending"));
});

for (const [name, budgets, prices] of [
  ["request", { request: 4, day: 10_000 }, [5]],
  ["day", { request: 50, day: OPEN_PRICE + 9 }, [5, 5]],
  ["hour", { request: 50, day: 10_000, hour: OPEN_PRICE + 9 }, [5, 5]],
  ["host", { request: 50, day: 10_000, host: OPEN_PRICE + 9 }, [5, 5]],
  ["open", { request: 50, day: 10_000, open: OPEN_PRICE - 1 }, [5]],
]) {
  test(`the budget "${name}" refuses what exceeds it, or asks`, async () => {
    await reopen({ budgets });
    for (const _ of prices.slice(1)) await buy();
    const before = payments().length;
    await assert.rejects(buy(), code("over_budget"));
    assert.equal(payments().length, before, "nothing was shown");
    await reopen({ budgets }); // what was signed counts after a restart
    await assert.rejects(buy(), code("over_budget"));
    const asked = [];
    await reopen({ budgets, ask: (purchase) => asked.push(purchase.over) > 0 });
    assert.equal((await buy()).status, 200);
    assert.ok(asked.flat().includes(name), JSON.stringify(asked));
    await reopen({ budgets, ask: () => false });
    if (name !== "open") await assert.rejects(buy(), code("over_budget"));
  });
}

test("budgets must be amounts", async () => {
  for (const budgets of [
    undefined,
    {},
    { request: 1 },
    { request: -1, day: 5 },
    { request: 1.5, day: 5 },
    { request: 1, day: "5" },
    { request: 1, day: 5, hour: NaN },
  ]) {
    opened.pop().close();
    await assert.rejects(open({ budgets }), code("invalid_amount"));
  }
});

test("what was not agreed is not paid: network, channel type, key, currency, dust limit, nonsense", async () => {
  for (const [details, request] of [
    [{ chain: "bip122:000000000019d6689c085ae165831e93" }, {}],
    [{ chain: "bip122:00000000000000000000000000000000" }, {}],
    [{ channelType: "p2wsh-1" }, {}],
    [{ dustLimit: "1" }, {}],
    [{ openPrice: "-5" }, {}],
    [{ settlementPeriod: 1.5 }, {}],
    [{}, { recipient: "04" + "11".repeat(32) }],
    [{}, { currency: "usd" }],
    [{}, { amount: "0" }],
    [{}, { amount: "1e3" }],
    [{}, { amount: 5 }],
    [{}, { methodDetails: null }],
  ]) {
    [shop.details, shop.request] = [details, request];
    await assert.rejects(buy(), code("invalid_challenge"), JSON.stringify([details, request]));
  }
  assert.equal((await payer.channels()).length, 0);
});

test("no payment is sent without TLS to another machine, nor after a redirect to another place", async () => {
  const elsewhere = await another();
  shop.script = async (row) => (row.payload ? { status: 307, headers: { Location: `${elsewhere.url}/news` } } : null);
  const answer = await buy();
  assert.equal(answer.status, 307);
  assert.equal(elsewhere.seen.length, 0);
  const plain = new Response("", { status: 402, headers: { "WWW-Authenticate": shop.challenge() } });
  Object.defineProperty(plain, "url", { value: "http://shop.example/news" });
  let sent = 0;
  await reopen({ fetch: async () => ((sent += 1), plain) });
  await assert.rejects(payer.fetch("http://shop.example/news"), code("invalid_challenge"));
  assert.equal(sent, 1);
});

test("a channel belongs to the server that it was made with: another with its key gets no payment", async () => {
  await buy();
  const mirror = await another();
  assert.deepEqual(mirror.pubkey, shop.pubkey);
  await payer.fetch(`${mirror.url}/news`);
  assert.equal((await payer.channels()).length, 2);
  const own = shop.seen.at(-1).payload.channelId;
  assert.deepEqual(
    mirror.seen.filter((row) => row.payload?.channelId === own),
    [],
  );
});

test("two purchases at once are bought one after the other, each with its own payment", async () => {
  await Promise.all(Array.from({ length: 6 }, (_, at) => buy(`/page/${at}`)));
  assert.equal(distinct(payments()).length, 6);
  assert.equal((await payer.channels()).length, 1);
  assert.equal(await signed(), OPEN_PRICE + 30);
});

test("without somebody who pays, what must be paid is told; once it is paid the same fetch goes on", async () => {
  await reopen({ fund: undefined });
  const need = await buy().then(
    () => assert.fail("it was paid"),
    (error) => (code("needs_funding")(error), error),
  );
  assert.match(need.uri, /^bitcoin:2[A-Za-z0-9]+\?amount=0\.00100000$/);
  await assert.rejects(buy(), code("needs_funding"));
  assert.equal((await payer.channels()).length, 1, "the address stays the same");
  const funding = await debugFund(need.need);
  for (const bad of [{ transaction: "00" }, { ...funding, txid: "zz" }, { ...funding, value: 0 }, { ...funding, vout: -1 }]) {
    await assert.rejects(payer.funded(need.channel, bad), code("invalid_transaction"));
  }
  await payer.funded(need.channel, funding);
  assert.equal((await buy()).status, 200);
});

test("words and channels are restored elsewhere, and go on from the newest payment, which the server shows", async () => {
  await buy();
  const backup = await payer.backup();
  for (let times = 0; times < 3; times += 1) await buy();
  const newest = stored().signed;
  const other = mkdtempSync(join(tmpdir(), "purse-"));
  const store = FileStore.open(other);
  await Payer.restore(store, backup);
  const again = await Payer.open({ store, network: "test", budgets: BUDGETS, fund: debugFund, patience: 1500 });
  assert.equal(again.words, payer.words);
  assert.equal((await again.fetch(`${shop.url}/news`)).status, 200);
  const [view] = await again.channels();
  assert.equal(view.signed, OPEN_PRICE + 25);
  assert.notEqual((await again.purse.channel(0)).signed, newest);
  assert.equal((await again.channels()).length, 1);
  await assert.rejects(Payer.restore(store, backup), code("invalid_key"));
  for (const bad of [
    "",
    "{}",
    backup.replace(/"words": "[a-z]+/, '"words": "satoshi'),
    backup.replace('"spent": 1005', '"spent": 999999'),
  ]) {
    const empty = { read: async () => null, write: async () => assert.fail("written") };
    await assert.rejects(
      Payer.restore(empty, bad),
      (error) => ["invalid_record", "invalid_key"].includes(error.code),
      bad.slice(0, 60),
    );
  }
  store.close();
  rmSync(other, { recursive: true });
});

test("a stored channel that was tampered with is refused", async () => {
  await buy();
  const good = readFileSync(join(directory, "channel-0.json"), "utf8");
  const record = JSON.parse(good);
  const spoil = {
    signed: record.signed.slice(0, -2) + "gg",
    expTime: record.expTime + 1,
    serverPubkey: record.clientPubkey,
    spent: 99_999_999,
    phase: "unknown",
    chain: "bip122:x",
    changeAddress: "x",
    funding: { ...record.funding, vout: record.funding.vout + 1 },
    version: 2,
    clientPubkey: record.serverPubkey,
    number: 1,
  };
  for (const [name, value] of Object.entries(spoil)) {
    opened.pop().close();
    writeFileSync(join(directory, "channel-0.json"), JSON.stringify({ ...record, [name]: value }));
    payer = await open();
    await assert.rejects(payer.channels(), code("invalid_record"), name);
    await assert.rejects(buy(), code("invalid_record"), name);
  }
});

test("the refund takes back what the channel holds, with an hour and day of spending told", async () => {
  await buy();
  const refund = await payer.refund(0, 2);
  assert.ok(refund.value > 12_345_678_000_000 && refund.validAfter === stored().expTime);
  const { hour, day, hosts } = await payer.spending();
  assert.deepEqual([hour, day, Object.values(hosts)], [OPEN_PRICE + 5, OPEN_PRICE + 5, [OPEN_PRICE + 5]]);
});

test("what is not asked for with our challenge is answered as it is", async () => {
  shop.script = async () => ({
    status: 402,
    headers: { "WWW-Authenticate": 'Payment id="1", realm="r", method="tempo", intent="session", request="e30"' },
  });
  assert.equal((await buy()).status, 402);
  shop.script = async () => ({ status: 200, body: "free" });
  assert.equal(await (await buy()).text(), "free");
  shop.script = async () => "drop";
  await assert.rejects(buy("/free"), TypeError);
  assert.equal((await payer.channels()).length, 0);
});

test("a directory is one process's at a time; a dead one's is taken over", async () => {
  assert.throws(() => FileStore.open(directory), code("busy"));
  const other = mkdtempSync(join(tmpdir(), "purse-"));
  const file = new URL("../dist/store/file.js", import.meta.url).href;
  const script = `import { FileStore } from ${JSON.stringify(file)}; FileStore.open(process.argv[1]); console.log("held"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, other], { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  assert.throws(() => FileStore.open(other), code("busy"));
  child.kill("SIGKILL");
  await new Promise((resolve) => child.once("exit", resolve));
  FileStore.open(other).close();
  execFileSync("test", ["!", "-e", join(other, "lock")]);
  rmSync(other, { recursive: true });
});

test("where the storage fails nothing is sent", async () => {
  await buy();
  const before = payments().length;
  opened.at(-1).close();
  await assert.rejects(buy(), code("state"));
  assert.equal(payments().length, before);
  opened.pop();
});
