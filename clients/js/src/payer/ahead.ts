/** How long a channel can be used, and when the next one is to be made (pure): the rules of the Python purse, held to the same
 * vectors. */

import { DUST_LIMIT } from "../core/money.js";
import type { SessionRequest } from "../wire/challenge.js";
import { paymentsEnd, signedValue, type ChannelRecord } from "./record.js";

/** The next channel is made when less than this of a channel's value, or of its time, is left. */
export const LOW_PERCENT = 10;

/** So long before its end a channel is not used any more: clocks differ, those of browsers more than those of servers. */
export const MARGIN_SECONDS = 600;

/** Return whether the next channel is to be made: less than two purchases, or a tenth of value or life, is left. left: beyond
 * the dust limit; value, cost: of the channel, of a purchase; satoshi. timeLeft, life: seconds. */
export function runsLow(left: number, value: number, cost: number, timeLeft: number, life: number): boolean {
  return left < 2 * cost || left * 100 < value * LOW_PERCENT || timeLeft * 100 < life * LOW_PERCENT;
}

/** Return until when a channel can be used; unix seconds. One that is not open yet must still be opened by then. */
export function endsAt(record: ChannelRecord, terms: SessionRequest): number {
  if (record.phase !== "open") return record.expTime - terms.settlementPeriod - MARGIN_SECONDS - terms.minDuration;
  return record.expTime - Math.max(terms.settlementPeriod, record.settlementPeriod) - MARGIN_SECONDS;
}

/** Return whether nothing more may be signed on a channel: its server takes nothing that comes so late. */
export const isTooLate = (record: ChannelRecord, now: number): boolean => paymentsEnd(record) - MARGIN_SECONDS <= now;

/** Return whether an open channel will not last. cost: of a purchase, satoshi; life: for how long channels are made, seconds. */
export function isLow(record: ChannelRecord, terms: SessionRequest, cost: number, now: number, life: number): boolean {
  if (record.phase !== "open" || record.funding === null) return false;
  const left = record.funding.value - signedValue(record) - DUST_LIMIT;
  return runsLow(left, record.funding.value, cost, endsAt(record, terms) - now, Math.min(life, terms.maxDuration));
}
