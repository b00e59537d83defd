// Signs vouchers for app.js by mppx's own client code: `node requests.js URL CONNECTIONS FIRST CALLS` prints a JSON list,
// for each connection the values of Authorization in order, beginning with its FIRSTth call.

import { Challenge, Credential } from "mppx";
import { Session } from "mppx/tempo";

import { chain, channel, CHAIN_ID, ESCROW } from "./common.js";

const [url, ...numbers] = process.argv.slice(2);
const [connections, first, calls] = numbers.map(Number);
const client = chain();
const challenge = Challenge.fromResponse(await fetch(url));
const price = BigInt(challenge.request.amount);
const found = [];
for (let number = 0; number < connections; number += 1) {
  const { payer, descriptor, id } = channel(number);
  const values = [];
  for (let call = first + 1; call <= first + calls; call += 1) {
    const voucher = { channelId: id, cumulativeAmount: BigInt(call) * price };
    const signature = await Session.Precompile.Voucher.signVoucher(client, payer, voucher, ESCROW, CHAIN_ID);
    const payload = { action: "voucher", channelId: id, descriptor, cumulativeAmount: String(voucher.cumulativeAmount), signature };
    values.push(Credential.serialize({ challenge, payload, source: `did:pkh:eip155:${CHAIN_ID}:${payer.address}` }));
  }
  found.push(values);
}
console.log(JSON.stringify(found));
