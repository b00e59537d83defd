/** The funding output that a server in debug mode makes up: no money moves (network test only). */

import { sha256, toHex } from "./bytes.js";
import type { Funding } from "./transaction.js";

export const DEBUG_FUNDING_VALUE = 12_345_678_900_000;

/** Return the made-up output of a payer's key and expiry. */
export function debugFunding(clientPubkey: Uint8Array, expTime: number): Funding {
  return { outpoint: { txid: toHex(sha256(clientPubkey).reverse()), vout: expTime % 7 }, value: DEBUG_FUNDING_VALUE };
}
