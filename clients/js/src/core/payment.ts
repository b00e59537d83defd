/** A payment: what the payer keeps, and its signature over exactly that (docs/PROTOCOL.md, "The payment"). */

import { secp256k1 } from "@noble/curves/secp256k1.js";

import { concatBytes, equalBytes, fromBase64url, hash256, toBase64url, uint32, uint64 } from "./bytes.js";
import { PaychanError } from "./errors.js";
import { DUST_LIMIT, isSatoshi } from "./money.js";
import { outpointBytes, push, redeemScript, type Outpoint } from "./script.js";

/** SINGLE|ANYONECANPAY: the payer signs for its own input and for output 0, its change. */
export const SIGHASH_CHANGE = 0x83;
/** NONE|ANYONECANPAY: the payer gives up everything; the change value is 0. */
export const SIGHASH_NO_CHANGE = 0x82;

/** Bytes; change value, the longest strict DER signature of this curve, sighash type. */
const SIZE_MAX = 8 + 72 + 1;

/** What a channel's signatures commit to. Values in satoshi, expTime in unix seconds, keys compressed. */
export interface ChannelTerms {
  readonly outpoint: Outpoint;
  readonly serverPubkey: Uint8Array;
  readonly clientPubkey: Uint8Array;
  readonly expTime: number;
  readonly fundingValue: number;
  readonly changeScript: Uint8Array;
}

/** signature: strict DER, without the sighash type. */
export interface Payment {
  readonly changeValue: number;
  readonly signature: Uint8Array;
  readonly sighashType: number;
}

export const termsRedeemScript = (terms: ChannelTerms): Uint8Array =>
  redeemScript(terms.serverPubkey, terms.clientPubkey, terms.expTime);

/** Return the 32-byte legacy sighash (not BIP 143) of the transaction that leaves the payer `changeValue`. */
export function paymentSighash(terms: ChannelTerms, changeValue: number, sighashType: number): Uint8Array {
  const outputs =
    sighashType === SIGHASH_CHANGE
      ? concatBytes(Uint8Array.of(1), uint64(changeValue), push(terms.changeScript))
      : Uint8Array.of(0);
  const redeem = termsRedeemScript(terms);
  return hash256(
    concatBytes(
      uint32(1), // version
      Uint8Array.of(1),
      outpointBytes(terms.outpoint),
      Uint8Array.of(redeem.length),
      redeem,
      uint32(0xffffffff),
      outputs,
      uint32(0), // lock time
      uint32(sighashType),
    ),
  );
}

/** Return the payment that leaves the payer `changeValue` satoshi; below the dust limit it gives up everything. */
export function signPayment(terms: ChannelTerms, changeValue: number, secret: Uint8Array): Payment {
  if (!isSatoshi(changeValue) || changeValue > terms.fundingValue) {
    throw new PaychanError("invalid_amount", "the change value is more than the channel holds");
  }
  const sighashType = changeValue >= DUST_LIMIT ? SIGHASH_CHANGE : SIGHASH_NO_CHANGE;
  const left = sighashType === SIGHASH_CHANGE ? changeValue : 0;
  return { changeValue: left, signature: signDigest(paymentSighash(terms, left, sighashType), secret), sighashType };
}

/** Return a DER signature with low S over a digest. */
export function signDigest(digest: Uint8Array, secret: Uint8Array): Uint8Array {
  const compact = secp256k1.sign(digest, secret, { prehash: false, lowS: true });
  return secp256k1.Signature.fromBytes(compact).toBytes("der");
}

/** Whether a payment is one of this channel, signed by its payer. */
export function verifyPayment(terms: ChannelTerms, payment: Payment): boolean {
  const digest = paymentSighash(terms, payment.changeValue, payment.sighashType);
  try {
    return (
      payment.changeValue <= terms.fundingValue &&
      secp256k1.verify(payment.signature, digest, terms.clientPubkey, { prehash: false, lowS: true, format: "der" })
    );
  } catch {
    return false;
  }
}

export function serializePayment(payment: Payment): Uint8Array {
  return concatBytes(uint64(payment.changeValue), payment.signature, Uint8Array.of(payment.sighashType));
}

export const encodePayment = (payment: Payment): string => toBase64url(serializePayment(payment));

/** Return the payment in canonical base64url. Throws invalid_payment; whether its signature is true is not looked at. */
export function decodePayment(text: string): Payment {
  const raw = fromBase64url(text);
  if (raw === null) throw new PaychanError("invalid_payment", "the payment is not canonical base64url");
  return parsePayment(raw);
}

/** Return the payment in its binary form. Throws invalid_payment. */
export function parsePayment(raw: Uint8Array): Payment {
  const wrong = (what: string): PaychanError => new PaychanError("invalid_payment", `the payment's ${what}`);
  if (raw.length < 8 + 8 + 1 || raw.length > SIZE_MAX) throw wrong("length is wrong");
  const value = new DataView(raw.buffer, raw.byteOffset).getBigUint64(0, true);
  const signature = raw.slice(8, -1);
  const sighashType = raw.at(-1) as number;
  const numbers = readDer(signature);
  if (numbers === null) throw wrong("signature is not strict DER, or has numbers outside the group");
  if (numbers.hasHighS()) throw wrong("signature has a high S");
  const changeValue = Number(value);
  if (sighashType !== SIGHASH_CHANGE && sighashType !== SIGHASH_NO_CHANGE) throw wrong("sighash type is not 0x83 or 0x82");
  if (!isSatoshi(changeValue)) throw wrong("change value exceeds all bitcoins");
  if (sighashType === SIGHASH_NO_CHANGE && changeValue !== 0) throw wrong("change value must be 0 for sighash type 0x82");
  if (sighashType === SIGHASH_CHANGE && changeValue < DUST_LIMIT) throw wrong("change value is below the dust limit");
  return { changeValue, signature, sighashType };
}

/** Return a signature's numbers if they are written in the one form that DER has for them (BIP 66); null if not. */
function readDer(der: Uint8Array): { hasHighS(): boolean } | null {
  try {
    const signature = secp256k1.Signature.fromBytes(der, "der");
    return equalBytes(signature.toBytes("der"), der) ? signature : null;
  } catch {
    return null;
  }
}
