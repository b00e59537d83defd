/** The payer's own transactions: its refund after the expiry; and a look into others': funding and settlement. */

import { concatBytes, equalBytes, fromHex, hash256, toHex, uint32, uint64 } from "./bytes.js";
import { PaychanError } from "./errors.js";
import { checkSatoshi, DUST_LIMIT, isSatoshi } from "./money.js";
import { signDigest, termsRedeemScript, type ChannelTerms } from "./payment.js";
import { outpointBytes, p2shScript, push, type Outpoint } from "./script.js";

const SIGHASH_ALL = 0x01;
/** The highest sequence with which a lock time is still enforced (BIP 65). */
const SEQUENCE_LOCKTIME = 0xfffffffe;

/** Other signatures may be a byte longer. */
const REFUND_SLACK = 2;

/** Of the channel's value; a refund that costs more is a mistake in the fee rate. */
const FEE_SHARE_MAX = 0.5;

/** raw: hex. fee, value: satoshi. validAfter: unix seconds, of the chain's median time, which is about an hour late. */
export interface Refund {
  readonly raw: string;
  readonly txid: string;
  readonly fee: number;
  readonly value: number;
  readonly validAfter: number;
}

/** Return the refund that takes everything back after the expiry. feeRate: satoshi a byte. Throws invalid_amount. */
export function makeRefund(terms: ChannelTerms, secret: Uint8Array, feeRate: number): Refund {
  if (!Number.isFinite(feeRate) || feeRate < 0)
    throw new PaychanError("invalid_amount", "the fee rate is no number of satoshi a byte");
  const fee = Math.ceil((signRefund(terms, 0, secret).length + REFUND_SLACK) * feeRate);
  if (fee > terms.fundingValue * FEE_SHARE_MAX) {
    throw new PaychanError("invalid_amount", `a fee of ${fee} satoshi would take more than half of ${terms.fundingValue}`);
  }
  const raw = signRefund(terms, fee, secret);
  const txid = toHex(hash256(raw).reverse());
  return { raw: toHex(raw), txid, fee, value: terms.fundingValue - fee, validAfter: terms.expTime };
}

/** Return the serialised refund. fee: satoshi. Throws invalid_amount if dust would remain. */
export function signRefund(terms: ChannelTerms, fee: number, secret: Uint8Array): Uint8Array {
  checkSatoshi(fee, "the fee");
  if (terms.fundingValue < fee + DUST_LIMIT) {
    throw new PaychanError("invalid_amount", "the channel's value does not pay for the refund's fee");
  }
  const redeem = termsRedeemScript(terms);
  const output = concatBytes(uint64(terms.fundingValue - fee), push(terms.changeScript));
  const spend = (scriptSig: Uint8Array): Uint8Array =>
    concatBytes(
      uint32(1), // version
      Uint8Array.of(1),
      outpointBytes(terms.outpoint),
      Uint8Array.of(scriptSig.length),
      scriptSig,
      uint32(SEQUENCE_LOCKTIME),
      Uint8Array.of(1),
      output,
      uint32(terms.expTime), // lock time
    );
  const digest = hash256(concatBytes(spend(redeem), uint32(SIGHASH_ALL)));
  const signature = concatBytes(signDigest(digest, secret), Uint8Array.of(SIGHASH_ALL));
  return spend(concatBytes(push(signature), Uint8Array.of(0), push(redeem)));
}

export interface Output {
  readonly value: number;
  readonly script: Uint8Array;
}

/** What of a transaction matters here; the txid proves the outputs. */
export interface Transaction {
  readonly txid: string;
  readonly inputs: readonly Outpoint[];
  readonly outputs: readonly Output[];
}

/** Return a serialised transaction's parts, with or without witnesses. Throws invalid_transaction. */
export function parseTransaction(hex: string): Transaction {
  const raw = fromHex(hex, hex.length / 2);
  if (raw === null) throw new PaychanError("invalid_transaction", "the transaction is not hex");
  try {
    return new Reader(raw).transaction();
  } catch (error) {
    if (error instanceof RangeError) throw new PaychanError("invalid_transaction", "the transaction does not parse");
    throw error;
  }
}

class Reader {
  private at = 0;

  constructor(private readonly raw: Uint8Array) {}

  transaction(): Transaction {
    const version = this.take(4);
    const isSegwit = this.raw[this.at] === 0 && this.raw[this.at + 1] === 1;
    if (isSegwit) this.at += 2;
    const from = this.at;
    const inputs = this.list(() => this.input());
    const outputs = this.list(() => this.output());
    const body = this.raw.slice(from, this.at);
    if (isSegwit) inputs.forEach(() => this.list(() => this.take(this.size())));
    const lockTime = this.take(4);
    if (this.at !== this.raw.length) throw new RangeError("more than a transaction");
    return { txid: toHex(hash256(concatBytes(version, body, lockTime)).reverse()), inputs, outputs };
  }

  private take(size: number): Uint8Array {
    if (size > this.raw.length - this.at) throw new RangeError("cut off");
    return this.raw.slice(this.at, (this.at += size));
  }

  private number(size: 1 | 2 | 4 | 8): number {
    return this.take(size).reduceRight((sum, byte) => sum * 256 + byte, 0);
  }

  private size(): number {
    const first = this.number(1);
    return first < 0xfd ? first : this.number(first === 0xfd ? 2 : first === 0xfe ? 4 : 8);
  }

  private list<T>(read: () => T): T[] {
    const count = this.size();
    if (count > this.raw.length) throw new RangeError("too many");
    return Array.from({ length: count }, read);
  }

  private input(): Outpoint {
    const outpoint = { txid: toHex(this.take(32).reverse()), vout: this.number(4) };
    this.take(this.size());
    this.take(4);
    return outpoint;
  }

  private output(): Output {
    const value = this.number(8);
    if (!isSatoshi(value)) throw new RangeError("no amount");
    return { value, script: this.take(this.size()) };
  }
}

export interface Funding {
  readonly outpoint: Outpoint;
  readonly value: number;
}

/** Return the one output of a transaction that pays to the redeem script. Throws invalid_transaction if it is not one. */
export function findFunding(redeem: Uint8Array, hex: string): Funding {
  const transaction = parseTransaction(hex);
  const script = p2shScript(redeem);
  const found = transaction.outputs.flatMap((output, vout) =>
    equalBytes(output.script, script) ? [{ outpoint: { txid: transaction.txid, vout }, value: output.value }] : [],
  );
  const [funding] = found;
  if (funding === undefined || found.length !== 1 || funding.value === 0) {
    throw new PaychanError("invalid_transaction", `${found.length} outputs of this transaction pay to the channel's address`);
  }
  return funding;
}

/** Return the change that a settlement pays, in satoshi. Throws misbehaved if it is less than `owed`, or spends something else. */
export function checkSettlement(terms: ChannelTerms, owed: number, hex: string): number {
  const transaction = parseTransaction(hex);
  const { txid, vout } = terms.outpoint;
  if (!transaction.inputs.some((input) => input.txid === txid && input.vout === vout)) {
    throw new PaychanError("misbehaved", "this transaction does not spend the channel's funding output");
  }
  const paid = transaction.outputs
    .filter((output) => equalBytes(output.script, terms.changeScript))
    .reduce((sum, output) => sum + output.value, 0);
  if (paid < owed) throw new PaychanError("misbehaved", `the settlement pays ${paid} satoshi of change, owed are ${owed}`);
  return paid;
}
