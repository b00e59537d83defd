/** What a payer knows about one of its channels, as it is stored. Everything derived and every signature is checked when it
 * is read. */

import { fromHex, parseObject, toHex } from "../core/bytes.js";
import { PaychanError } from "../core/errors.js";
import { isExpiry, isSatoshi } from "../core/money.js";
import { decodeAddress, findNetwork, type Network } from "../core/network.js";
import { decodePayment, verifyPayment, type ChannelTerms, type Payment } from "../core/payment.js";
import { formatOutpoint, fundingAddress, redeemScript, type Outpoint } from "../core/script.js";

/** unfunded: nobody has paid to the address yet. funded: paid, not opened. open: takes payments. over: closed, expired or
 * given up. */
export type Phase = "unfunded" | "funded" | "open" | "over";

export interface Signing {
  /** Unix seconds, of the first that is counted here. */
  readonly at: number;
  readonly value: number;
  readonly host: string;
}

/** A request that buys: where, and under which key and fingerprint. */
export interface Order {
  readonly method: string;
  readonly url: string;
  readonly key: string;
  readonly request: string;
}

/** Amounts in satoshi, times in unix seconds, keys in hex. `number`: that of its key. */
export interface ChannelRecord {
  readonly version: 1;
  readonly number: number;
  readonly origin: string;
  readonly chain: string;
  readonly serverPubkey: string;
  readonly clientPubkey: string;
  readonly expTime: number;
  readonly changeAddress: string;
  readonly settlementPeriod: number;
  readonly fundingConfirmations: number;
  readonly openPrice: number;
  readonly plannedValue: number;
  readonly funding: { readonly txid: string; readonly vout: number; readonly value: number } | null;
  readonly phase: Phase;
  /** The newest payment that was signed, and the newest that the server is known to have. They differ while an outcome is
   * unknown. */
  readonly signed: string | null;
  readonly accepted: string | null;
  /** What the server said it charged, of `accepted`. */
  readonly spent: number;
  /** A purchase whose answer has not come: its key, and its request's fingerprint. The same request again is the same purchase. */
  readonly purchase: { readonly key: string; readonly request: string } | null;
  /** Where the newest payment was meant to go: there the channel can be asked after, and closed. */
  readonly method: string;
  readonly url: string;
  /** It comes from a backup: newer payments may have been signed since. */
  readonly isStale: boolean;
  /** How often, one after the other, the server said of a payment that it had been used before. */
  readonly doubts: number;
  /** Why nothing more is signed on it; empty: nothing is wrong. */
  readonly hold: string;
  readonly settlement: string | null;
  readonly signings: readonly Signing[];
}

export function recordNetwork(record: ChannelRecord): Network {
  const network = findNetwork(record.chain);
  if (network === null) throw damaged("chain");
  return network;
}

const key = (hex: string): Uint8Array => fromHex(hex, 33) ?? new Uint8Array();

const recordRedeem = (record: ChannelRecord): Uint8Array =>
  redeemScript(key(record.serverPubkey), key(record.clientPubkey), record.expTime);

export { recordRedeem };

/** Where the channel is funded. */
export const recordAddress = (record: ChannelRecord): string => fundingAddress(recordNetwork(record), recordRedeem(record));

/** Return the terms of a funded channel. */
export function recordTerms(record: ChannelRecord): ChannelTerms {
  if (record.funding === null) throw new PaychanError("needs_funding", "this channel is not funded");
  return {
    outpoint: { txid: record.funding.txid, vout: record.funding.vout },
    serverPubkey: key(record.serverPubkey),
    clientPubkey: key(record.clientPubkey),
    expTime: record.expTime,
    fundingValue: record.funding.value,
    changeScript: decodeAddress(recordNetwork(record), record.changeAddress),
  };
}

/** The channel's name on the wire; empty before it is funded. */
export const recordName = (record: ChannelRecord): string => (record.funding ? formatOutpoint(record.funding as Outpoint) : "");

/** Satoshi that a payment signs away in all; 0 for none. */
export const cumulative = (record: ChannelRecord, payment: string | null): number =>
  payment === null || record.funding === null ? 0 : record.funding.value - decodePayment(payment).changeValue;

export const signedValue = (record: ChannelRecord): number => cumulative(record, record.signed);
export const acceptedValue = (record: ChannelRecord): number => cumulative(record, record.accepted);

/** Satoshi that were paid and not used yet. */
export const credit = (record: ChannelRecord): number => acceptedValue(record) - record.spent;

/** Whether a signed payment's outcome is unknown. */
export const isPending = (record: ChannelRecord): boolean => record.signed !== record.accepted;

/** From this moment on the server takes no payment. */
export const paymentsEnd = (record: ChannelRecord): number => record.expTime - record.settlementPeriod;

/** Return the record in a text. Throws invalid_record, naming what is wrong; pubkey: of the wallet's key with the record's
 * number. */
export function parseRecord(text: string, pubkey: (record: ChannelRecord) => Uint8Array): ChannelRecord {
  const record = parseObject(text) as unknown as ChannelRecord | null;
  if (record === null || record.version !== 1) throw damaged("version");
  try {
    check(record, pubkey);
  } catch (error) {
    throw error instanceof PaychanError && error.code === "invalid_record" ? error : damaged((error as Error).message);
  }
  return record;
}

const damaged = (what: string): PaychanError => new PaychanError("invalid_record", `the stored channel is damaged: ${what}`);

function check(record: ChannelRecord, pubkey: (record: ChannelRecord) => Uint8Array): void {
  const must = (isRight: unknown, what: string): void => {
    if (!isRight) throw damaged(what);
  };
  must(Number.isSafeInteger(record.number) && record.number >= 0, "number");
  must(fromHex(record.serverPubkey, 33) && fromHex(record.clientPubkey, 33), "keys");
  must(record.clientPubkey === toHex(pubkey(record)), "clientPubkey is not of this wallet");
  must(isExpiry(record.expTime), "expTime");
  must(["unfunded", "funded", "open", "over"].includes(record.phase), "phase");
  for (const name of ["openPrice", "plannedValue", "spent"] as const) must(isSatoshi(record[name]), name);
  for (const name of ["settlementPeriod", "fundingConfirmations", "doubts"] as const) {
    must(Number.isSafeInteger(record[name]) && record[name] >= 0, name);
  }
  for (const name of ["origin", "method", "url", "hold"] as const) must(typeof record[name] === "string", name);
  must(
    Array.isArray(record.signings) && record.signings.every((row) => isSatoshi(row?.value) && Number.isFinite(row.at)),
    "signings",
  );
  decodeAddress(recordNetwork(record), record.changeAddress);
  if (record.funding === null) {
    must(record.signed === null && record.accepted === null && record.phase !== "open", "phase");
    return;
  }
  must(isSatoshi(record.funding.value) && record.funding.value > 0, "funding");
  const terms = recordTerms(record);
  let above = terms.fundingValue;
  for (const name of ["accepted", "signed"] as const) {
    const payment: Payment | null = record[name] === null ? null : decodePayment(record[name]);
    must(payment === null || (payment.changeValue <= above && verifyPayment(terms, payment)), name);
    above = payment?.changeValue ?? above;
  }
  must(record.accepted === null || record.signed !== null, "signed");
  must(record.spent <= acceptedValue(record), "spent");
}

/** A purchase that was not answered goes on under its key when the same request comes again; every other has the order's own. */
export function resumed(record: ChannelRecord, order: Order): Order {
  return record.purchase?.request === order.request ? { ...order, key: record.purchase.key } : order;
}
