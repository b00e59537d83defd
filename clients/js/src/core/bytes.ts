/** Bytes and their texts. Every decoder takes one spelling of each value. */

import { base64urlnopad } from "@scure/base";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js";

export { concatBytes, sha256, utf8ToBytes };
export const toHex = bytesToHex;

/** Return the bytes of lower- or upper-case hex; null if it is none, or not `size` bytes. */
export function fromHex(text: unknown, size: number): Uint8Array | null {
  return typeof text === "string" && text.length === 2 * size && /^[0-9a-fA-F]*$/.test(text) ? hexToBytes(text) : null;
}

export const toBase64url = (bytes: Uint8Array): string => base64urlnopad.encode(bytes);

/** Return the bytes of canonical base64url, with or without its padding; null if it is none. */
export function fromBase64url(text: unknown): Uint8Array | null {
  if (typeof text !== "string") return null;
  const bare = text.length % 4 === 0 ? text.replace(/={1,2}$/, "") : text;
  try {
    return base64urlnopad.decode(bare);
  } catch {
    return null;
  }
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export function uint32(number: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, number, true);
  return bytes;
}

export function uint64(number: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(number), true);
  return bytes;
}

export const hash256 = (bytes: Uint8Array): Uint8Array => sha256(sha256(bytes));

/** Return a JSON object's text as an object; null if it is anything else. */
export function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

/** Return base64url JSON as an object; null if it is none. */
export function decodeJson(text: unknown): Record<string, unknown> | null {
  const bytes = fromBase64url(text);
  if (bytes === null) return null;
  try {
    return parseObject(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
}

export const encodeJson = (value: unknown): string => toBase64url(utf8ToBytes(JSON.stringify(value)));
