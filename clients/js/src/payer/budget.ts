/** Budgets: how much may be signed away without anybody being asked. What counts is what was signed, whether or not it was used. */

import { PaychanError } from "../core/errors.js";
import { isSatoshi } from "../core/money.js";
import type { ChannelRecord, Signing } from "./record.js";

export const HOUR = 3600;
export const DAY = 24 * HOUR;

/** Signings are counted together for so many seconds: a stream that is paid by the second must not fill the storage. */
const BUCKET = 300;

/** Satoshi. */
export interface Budgets {
  /** Of one request. */
  readonly request: number;
  /** Of any 24 hours, with all servers. */
  readonly day: number;
  /** Of any hour, with all servers; without it, the day's. */
  readonly hour?: number;
  /** Of any 24 hours, with one host; without it, the day's. */
  readonly host?: number;
  /** The price of opening a channel, which pays for its settlement; without it, 20 000. It counts for the others too, but
   * `request`. */
  readonly open?: number;
  /** The most to lock up in one channel; without it, 1 000 000. */
  readonly deposit?: number;
}

export type BudgetName = keyof Budgets;

const DEFAULTS = { open: 20_000, deposit: 1_000_000 } as const;

/** What is about to be signed: `value` satoshi for `url`, of which `openPrice` open a channel. `over`: the budgets that it
 * exceeds. */
export interface Purchase {
  readonly url: string;
  readonly host: string;
  readonly value: number;
  readonly openPrice: number;
  readonly over: readonly BudgetName[];
}

/** Throws invalid_amount if a budget is none. */
export function checkBudgets(budgets: Budgets): void {
  for (const name of ["request", "day"] as const) {
    if (!isSatoshi(budgets?.[name])) throw new PaychanError("invalid_amount", `the budget "${name}" must be said, in satoshi`);
  }
  for (const [name, value] of Object.entries(budgets)) {
    if (value !== undefined && !isSatoshi(value))
      throw new PaychanError("invalid_amount", `the budget "${name}" is no amount in satoshi`);
  }
}

export const budgetOf = (budgets: Budgets, name: "open" | "deposit"): number => budgets[name] ?? DEFAULTS[name];

/** Return what was signed since `from`, with one host or with all. */
export function signedSince(records: readonly ChannelRecord[], from: number, host?: string): number {
  return records
    .flatMap((record) => record.signings)
    .filter((signing) => signing.at + BUCKET > from && (host === undefined || signing.host === host))
    .reduce((sum, signing) => sum + signing.value, 0);
}

/** What is to be signed now: `value` satoshi, `openPrice` of these for an opening; `request`: for this request in all,
 * without that. */
export interface Step {
  readonly value: number;
  readonly openPrice: number;
  readonly request: number;
}

/** Return the names of the budgets that a step would exceed. */
export function exceeded(
  budgets: Budgets,
  records: readonly ChannelRecord[],
  now: number,
  host: string,
  step: Step,
): BudgetName[] {
  const { value, openPrice, request } = step;
  const rows: readonly (readonly [BudgetName, number, number])[] = [
    ["request", request, budgets.request],
    ["open", openPrice, budgetOf(budgets, "open")],
    ["hour", signedSince(records, now - HOUR) + value, budgets.hour ?? budgets.day],
    ["day", signedSince(records, now - DAY) + value, budgets.day],
    ["host", signedSince(records, now - DAY, host) + value, budgets.host ?? budgets.day],
  ];
  return rows.filter(([, would, most]) => would > most).map(([name]) => name);
}

/** Return the signings with one more, those older than a day left out. */
export function addSigning(signings: readonly Signing[], now: number, host: string, value: number): Signing[] {
  const kept = signings.filter((one) => one.at + BUCKET > now - DAY);
  const last = kept.at(-1);
  if (last && last.host === host && now - last.at < BUCKET && now >= last.at) {
    return [...kept.slice(0, -1), { ...last, value: last.value + value }];
  }
  return [...kept, { at: now, value, host }];
}
