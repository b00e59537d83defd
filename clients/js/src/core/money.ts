/** Satoshi and unix seconds, as whole numbers that a double holds exactly. */

import { PaychanError } from "./errors.js";

/** All bitcoins there can be, in satoshi. */
export const MAX_MONEY = 2_100_000_000_000_000;

/** Satoshi; a change value between 1 and this cannot be signed for (protocol v1). */
export const DUST_LIMIT = 700;

const EXPIRY_MIN = 500_000_000;
const EXPIRY_MAX = 4_294_967_295;

export const isSatoshi = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= MAX_MONEY;

/** Return `value` if it is an amount in satoshi. Throws invalid_amount. */
export function checkSatoshi(value: unknown, name: string): number {
  if (!isSatoshi(value)) throw new PaychanError("invalid_amount", `${name} is no amount in satoshi`);
  return value;
}

/** Return the satoshi that a plain decimal says; null if it is none. */
export function parseSatoshi(text: unknown): number | null {
  if (typeof text !== "string" || !/^(0|[1-9][0-9]{0,15})$/.test(text)) return null;
  const value = Number(text);
  return isSatoshi(value) ? value : null;
}

/** Whether a number is a lock time in unix seconds (and no block height). */
export const isExpiry = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && value >= EXPIRY_MIN && value <= EXPIRY_MAX;
