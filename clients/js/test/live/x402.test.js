/** Aim: x402's own client and server trade for channels with our schemes. Method: a shop of x402's core server, whose
 * facilitator is the sellers' door of a real system in debug mode (PAYCHAN_SELL_URL, PAYCHAN_SELL_TOKEN), and x402's fetch
 * with our purse. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { HTTPFacilitatorClient, x402HTTPResourceServer, x402ResourceServer } from "@x402/core/server";
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";

import { debugFund, Payer } from "../../dist/index.js";
import { channels, ChannelScheme, SPEND_CONTROLS } from "../../dist/sdk/x402.js";
import { FileStore } from "../../dist/store/file.js";

const SELL = process.env.PAYCHAN_SELL_URL;
const headers = { Authorization: `Bearer ${process.env.PAYCHAN_SELL_TOKEN}` };
const NETWORK = "bip122:000000000933ea01ad0ee984209779ba";
const PRICE = 7;

let shop, url, directory, payer, store;
let served = 0;
let isFailing = false;

before(async () => {
  const facilitator = new HTTPFacilitatorClient({
    url: `${SELL}/x402`,
    createAuthHeaders: async () => ({ supported: headers, verify: headers, settle: headers }),
  });
  const server = new x402ResourceServer(facilitator).register("bip122:*", new ChannelScheme());
  const accepts = { scheme: "batch-settlement", network: NETWORK, payTo: "", price: PRICE };
  const http = new x402HTTPResourceServer(server, { "GET /news": { accepts } });
  await http.initialize();
  shop = createServer((request, response) => serve(http, request, response));
  await new Promise((resolve) => shop.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${shop.address().port}/news`;
  directory = mkdtempSync(join(tmpdir(), "purse-"));
  store = FileStore.open(directory);
  payer = await Payer.open({ store, network: "test", budgets: { request: 50, day: 1_000_000, open: 200_000 }, fund: debugFund });
});

after(() => {
  shop.closeAllConnections();
  shop.close();
  store.close();
  rmSync(directory, { recursive: true });
});

async function serve(http, request, response) {
  const absolute = `http://${request.headers.host}${request.url}`;
  const adapter = {
    getHeader: (name) => request.headers[name.toLowerCase()],
    getMethod: () => request.method,
    getPath: () => new URL(absolute).pathname,
    getUrl: () => absolute,
    getAcceptHeader: () => "",
    getUserAgent: () => "",
  };
  const context = {
    adapter,
    path: adapter.getPath(),
    method: request.method,
    paymentHeader: adapter.getHeader("payment-signature"),
  };
  const result = await http.processHTTPRequest(context);
  if (result.type === "payment-error") {
    response.writeHead(result.response.status, result.response.headers);
    return response.end(JSON.stringify(result.response.body ?? {}));
  }
  if (isFailing) {
    await result.cancellationDispatcher.cancel({ reason: "handler_failed" });
    response.writeHead(500);
    return response.end();
  }
  served += 1;
  const { paymentPayload, paymentRequirements, declaredExtensions, beforeHandlerSettlement } = result;
  const settled = await http.processSettlement(
    paymentPayload,
    paymentRequirements,
    declaredExtensions,
    { request: context },
    undefined,
    beforeHandlerSettlement,
  );
  response.writeHead(settled.success ? 200 : 402, settled.headers);
  response.end(settled.success ? "news" : "");
}

async function look() {
  const [view] = await payer.channels();
  const answer = await fetch(`${SELL}/v1/sell/channels/${view.name.replace(":", "/")}`, { headers });
  return answer.json();
}

function client(fetcher) {
  const scheme = channels(payer, fetcher);
  const made = x402Client.fromConfig({
    schemes: [{ network: "bip122:*", client: scheme.scheme }],
    spendControls: SPEND_CONTROLS,
  });
  return wrapFetchWithPayment(scheme.fetch, made);
}

test("x402's client buys from x402's server; goods, charges and the payer's books agree", async () => {
  const buy = client();
  for (let times = 1; times <= 4; times += 1) {
    const answer = await buy(url);
    assert.deepEqual([answer.status, await answer.text()], [200, "news"]);
    const [view] = await payer.channels();
    const { received, spent } = await look();
    assert.deepEqual([view.signed, view.accepted, view.isPending], [received, received, false]);
    assert.equal(spent, view.need.openPrice + times * PRICE);
    assert.equal(received, spent);
  }
  assert.equal(served, 4);
});

test("a payment is shown once more by a thief, and buys nothing", async () => {
  let stolen;
  const spy = async (request) => {
    stolen = new Request(request);
    return fetch(request);
  };
  assert.equal((await client(spy)(url)).status, 200);
  const { spent } = await look();
  const before = served;
  assert.equal((await fetch(stolen)).status, 402);
  assert.deepEqual([(await look()).spent, served], [spent, before]);
});

test("a handler that fails gives back what was charged, and the next purchase is paid from it", async () => {
  isFailing = true;
  const { spent } = await look();
  const failed = await client()(url);
  assert.equal(failed.status, 500);
  assert.equal((await look()).spent, spent);
  isFailing = false;
  assert.equal((await client()(url)).status, 200);
  const after = await look();
  assert.equal(after.spent, spent + PRICE);
  assert.ok(after.credit <= PRICE);
});

test("an answer that is lost costs at most one more price, and the books agree again", async () => {
  let isLosing = true;
  const lossy = async (request) => {
    const isPaid = request.headers.has("PAYMENT-SIGNATURE");
    const answer = await fetch(request);
    if (!isPaid || !isLosing) return answer;
    isLosing = false;
    throw new TypeError("the connection broke");
  };
  const buy = client(lossy);
  const { spent } = await look();
  await assert.rejects(buy(url), TypeError);
  assert.equal((await payer.channels())[0].isPending, true);
  assert.equal((await buy(url)).status, 200);
  const [view] = await payer.channels();
  const after = await look();
  assert.ok(after.spent <= spent + 2 * PRICE);
  assert.deepEqual([view.accepted, view.signed], [after.received, after.received]);
});

test("an offer that names another server is refused, and without our fetch nothing is paid", async () => {
  const lying = async (request) => {
    const answer = await fetch(request);
    const told = answer.headers.get("PAYMENT-REQUIRED");
    if (!told) return answer;
    const content = JSON.parse(Buffer.from(told, "base64").toString());
    content.resource.url = "http://127.0.0.1:1/news";
    const changed = new Headers({ "PAYMENT-REQUIRED": Buffer.from(JSON.stringify(content)).toString("base64") });
    return new Response("{}", { status: 402, headers: changed });
  };
  await assert.rejects(client(lying)(url), /offers something of/);
  const { scheme } = channels(payer);
  const bare = wrapFetchWithPayment(
    fetch,
    x402Client.fromConfig({ schemes: [{ network: "bip122:*", client: scheme }], spendControls: SPEND_CONTROLS }),
  );
  await assert.rejects(bare(url), /must be given the fetch/);
});

test("prices are satoshi, and a route pays nobody else", async () => {
  const scheme = new ChannelScheme();
  for (const price of [5, "5", { amount: "5", asset: "sat" }])
    assert.deepEqual(await scheme.parsePrice(price), { amount: "5", asset: "sat" });
  for (const price of [0, -1, 1.5, "$1", "", null, { amount: "5", asset: "usd" }, 3e15]) {
    await assert.rejects(scheme.parsePrice(price), (error) => error.code === "invalid_amount");
  }
  await assert.rejects(scheme.enhancePaymentRequirements({ payTo: "somebody", extra: {} }, { extra: { payTo: "us" } }));
});
