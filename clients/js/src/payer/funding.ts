/** A channel's funding: what is to be paid, and what somebody says was paid. */

import { fromHex } from "../core/bytes.js";
import { debugFunding } from "../core/debug.js";
import { PaychanError } from "../core/errors.js";
import { parseSatoshi } from "../core/money.js";
import type { NetworkName } from "../core/network.js";
import { findFunding, type Funding } from "../core/transaction.js";
import { recordAddress, recordNetwork, recordRedeem, type ChannelRecord } from "./record.js";

/** What to pay, and why. Amounts in satoshi, expTime in unix seconds; uri: BIP 21, for a link or a QR code. */
export interface FundingNeed {
  readonly channel: number;
  readonly origin: string;
  readonly network: NetworkName;
  readonly address: string;
  readonly value: number;
  readonly uri: string;
  readonly openPrice: number;
  readonly confirmations: number;
  readonly expTime: number;
  readonly clientPubkey: string;
}

/** The funding transaction in hex, which proves itself; or its output, whose value must be certain: a value too small signs
 * too much away. */
export type FundingAnswer =
  { readonly transaction: string } | { readonly txid: string; readonly vout: number; readonly value: number };

/** Return what is to be paid for a channel. */
export function needOf(record: ChannelRecord): FundingNeed {
  const address = recordAddress(record);
  const coins = (record.plannedValue / 1e8).toFixed(8);
  return {
    channel: record.number,
    origin: record.origin,
    network: recordNetwork(record).name,
    address,
    value: record.plannedValue,
    uri: `bitcoin:${address}?amount=${coins}`,
    openPrice: record.openPrice,
    confirmations: record.fundingConfirmations,
    expTime: record.expTime,
    clientPubkey: record.clientPubkey,
  };
}

/** Funds channels of a server in debug mode, on network test: no money moves. */
export async function debugFund(need: FundingNeed): Promise<FundingAnswer> {
  if (need.network !== "test") throw new PaychanError("invalid_transaction", "only network test has made-up funding");
  const { outpoint, value } = debugFunding(fromHex(need.clientPubkey, 33) as Uint8Array, need.expTime);
  return { ...outpoint, value };
}

/** Return the output that a callback, or a person, says has funded a channel. Throws invalid_transaction. */
export function readFunding(record: ChannelRecord, answer: FundingAnswer): Funding {
  if ("transaction" in answer) return findFunding(recordRedeem(record), answer.transaction);
  const { txid, vout, value } = answer;
  const isRight = fromHex(txid, 32) && txid === txid.toLowerCase() && Number.isInteger(vout) && vout >= 0 && vout <= 0xffffffff;
  if (!isRight || !Number.isSafeInteger(value) || value < 1 || parseSatoshi(String(value)) === null) {
    throw new PaychanError("invalid_transaction", "this is no funding output");
  }
  return { outpoint: { txid, vout }, value };
}
