/** The channel's redeem script and its P2SH funding output (docs/PROTOCOL.md, "The redeem script"). */

import { ripemd160 } from "@noble/hashes/legacy.js";

import { concatBytes, fromHex, sha256 } from "./bytes.js";
import { PaychanError } from "./errors.js";
import { isExpiry } from "./money.js";
import { encodeP2sh, type Network } from "./network.js";

export const hash160 = (bytes: Uint8Array): Uint8Array => ripemd160(sha256(bytes));

/** Return the shortest push of up to 255 bytes. */
export function push(data: Uint8Array): Uint8Array {
  if (data.length < 0x4c) return concatBytes(Uint8Array.of(data.length), data);
  if (data.length <= 0xff) return concatBytes(Uint8Array.of(0x4c, data.length), data);
  throw new PaychanError("invalid_transaction", "this push is longer than any that a channel needs");
}

/** Return a positive integer as a minimal script number: little-endian, its top bit clear (so 5 bytes from 2^31 on). */
function scriptNumber(value: number): Uint8Array {
  const bytes: number[] = [];
  for (let rest = value; rest > 0; rest = Math.floor(rest / 256)) bytes.push(rest % 256);
  if ((bytes.at(-1) ?? 0) >= 0x80) bytes.push(0);
  return Uint8Array.from(bytes);
}

/** Return the script that locks the funding output. Keys: 33 bytes, compressed. expTime: unix seconds. */
export function redeemScript(serverPubkey: Uint8Array, clientPubkey: Uint8Array, expTime: number): Uint8Array {
  if (serverPubkey.length !== 33 || clientPubkey.length !== 33)
    throw new PaychanError("invalid_key", "public keys have 33 bytes");
  if (!isExpiry(expTime)) throw new PaychanError("invalid_amount", "the expiry is no lock time in unix seconds");
  return concatBytes(
    Uint8Array.of(0x63),
    push(serverPubkey),
    Uint8Array.of(0xad), // IF <server> CHECKSIGVERIFY
    Uint8Array.of(0x67),
    push(scriptNumber(expTime)),
    Uint8Array.of(0xb1, 0x75), // ELSE <time> CHECKLOCKTIMEVERIFY DROP
    Uint8Array.of(0x68),
    push(clientPubkey),
    Uint8Array.of(0xac), // ENDIF <client> CHECKSIG
  );
}

export function p2shScript(redeem: Uint8Array): Uint8Array {
  return concatBytes(Uint8Array.of(0xa9, 20), hash160(redeem), Uint8Array.of(0x87));
}

/** Return the address at which the payer funds the channel. */
export function fundingAddress(network: Network, redeem: Uint8Array): string {
  return encodeP2sh(network, hash160(redeem));
}

/** The place of an output. txid: 64 lower-case hex digits in display order. */
export interface Outpoint {
  readonly txid: string;
  readonly vout: number;
}

/** Return an outpoint's 36 bytes: txid in internal order, index little-endian. */
export function outpointBytes(outpoint: Outpoint): Uint8Array {
  const txid = fromHex(outpoint.txid, 32);
  if (txid === null || !isVout(outpoint.vout)) throw new PaychanError("invalid_transaction", "this is no outpoint");
  const bytes = new Uint8Array(36);
  bytes.set(txid.reverse());
  new DataView(bytes.buffer).setUint32(32, outpoint.vout, true);
  return bytes;
}

const isVout = (vout: number): boolean => Number.isInteger(vout) && vout >= 0 && vout <= 0xffffffff;

/** Return the channel's name on the wire: `txid:vout`. */
export const formatOutpoint = (outpoint: Outpoint): string => `${outpoint.txid}:${outpoint.vout}`;

/** Return the outpoint of a canonical `txid:vout`; null if it is none. */
export function parseOutpoint(text: unknown): Outpoint | null {
  const match = typeof text === "string" ? /^([0-9a-f]{64}):(0|[1-9][0-9]{0,9})$/.exec(text) : null;
  if (!match?.[1] || !match[2] || !isVout(Number(match[2]))) return null;
  return { txid: match[1], vout: Number(match[2]) };
}
