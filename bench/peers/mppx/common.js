// What the shop and the payers of app.js agree on: channels that are open on a chain of our own making, each with a deposit that no
// run spends. The chain is answered for by bench/peers/chain.py.

import { Session } from "mppx/tempo";
import { createClient, http, zeroAddress } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { tempoModerato } from "viem/tempo/chains";

const { Channel, Constants } = Session.Precompile;

export const CHAIN_ID = tempoModerato.id;
export const CURRENCY = "0x20c0000000000000000000000000000000000000";
export const CHANNELS = 32;
export const DEPOSIT = 10n ** 12n;
export const ESCROW = Constants.tip20ChannelEscrow;
export const SELLER = account(1);

function account(number) {
  return privateKeyToAccount(`0x${(1000 + number).toString(16).padStart(64, "0")}`);
}

export function chain() {
  return createClient({ chain: tempoModerato, transport: http(process.env.CHAIN) });
}

/** The channel of the numberth payer, as it was opened. */
export function channel(number) {
  const payer = account(100 + number);
  const descriptor = {
    payer: payer.address,
    payee: SELLER.address,
    operator: zeroAddress,
    token: CURRENCY,
    salt: `0x${number.toString(16).padStart(64, "0")}`,
    authorizedSigner: zeroAddress,
    expiringNonceHash: `0x${"22".repeat(32)}`,
  };
  return { payer, descriptor, id: Channel.computeId({ ...descriptor, chainId: CHAIN_ID, escrow: ESCROW }).toLowerCase() };
}
