// mppx's session server as its own documents have it, behind Node.js' http: the vouchers of its own method, tempo, are verified and
// charged for by mppx itself. Channels are put into its store here, as an opening would have; the store is the one in memory.
// PORT; CHAIN: the URL of the chain's node.

import { createServer } from "node:http";

import { Mppx, Request, Store, tempo } from "mppx/server";

import { chain, channel, CHAIN_ID, CHANNELS, CURRENCY, DEPOSIT, ESCROW, SELLER } from "./common.js";

const store = Store.memory();
for (let number = 0; number < CHANNELS; number += 1) {
  const { id, descriptor, payer } = channel(number);
  await store.put(id, {
    backend: "precompile",
    authorizedSigner: payer.address,
    chainId: CHAIN_ID,
    channelId: id,
    descriptor,
    escrowContract: ESCROW,
    expiringNonceHash: descriptor.expiringNonceHash,
    operator: descriptor.operator,
    payee: descriptor.payee,
    payer: descriptor.payer,
    salt: descriptor.salt,
    token: descriptor.token,
    closeRequestedAt: 0n,
    deposit: DEPOSIT,
    settledOnChain: 0n,
    highestVoucherAmount: 0n,
    highestVoucher: null,
    spent: 0n,
    units: 0,
    finalized: false,
    createdAt: new Date().toISOString(),
  });
}
const client = chain();
const session = tempo.session({
  account: SELLER,
  chainId: CHAIN_ID,
  currency: CURRENCY,
  getClient: () => client,
  store,
  amount: "0.000001",
  unitType: "request",
});
const mppx = Mppx.create({ methods: [session], realm: "peers", secretKey: "not a secret: for a benchmark on this machine alone" });

async function answer(request) {
  const path = new URL(request.url).pathname;
  if (path === "/free") return Response.json({ ok: true });
  const found = await mppx.session({})(request);
  return found.status === 402 ? found.challenge : found.withReceipt(Response.json({ ok: true }));
}

const server = createServer({ keepAliveTimeout: 600_000 }, Request.toNodeListener(answer));
server.listen(Number(process.env.PORT), "127.0.0.1");
