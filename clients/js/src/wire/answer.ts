/** What a server says after a payment: receipts, snapshots, problem documents. All of it is information; none is a reason to
 * sign. */

import { decodeJson, fromHex, parseObject } from "../core/bytes.js";
import { parseSatoshi } from "../core/money.js";
import { decodePayment, type Payment } from "../core/payment.js";
import { parseOutpoint } from "../core/script.js";
import { CHANNEL_TYPE, METHOD } from "./challenge.js";

const CHARACTERS_MAX = 8192;
const PROBLEM_CHARACTERS_MAX = 1 << 20;
const TYPES = "https://paymentauth.org/problems/";

/** What a channel stands at after a purchase, in satoshi. `accepted`: received in all; `spent`: charged in all. */
export interface Receipt {
  readonly channelId: string;
  readonly challengeId: string;
  readonly accepted: number;
  readonly spent: number;
  readonly deposit: number;
  readonly units: number;
  /** RFC 3339. */
  readonly timestamp: string;
  /** The seller's signed receipt, if it signs any; `paychan/receipts` verifies it. Keep it if you want proof. */
  readonly jws: string | null;
  /** The settlement's txid, of a channel that was closed. */
  readonly settlement: string | null;
}

/** Return the receipt in a response; null if there is none of our method that makes sense. */
export function findReceipt(headers: Headers): Receipt | null {
  const text = headers.get("Payment-Receipt");
  return text === null || text.length > CHARACTERS_MAX ? null : readReceipt(decodeJson(text));
}

export function readReceipt(content: Readonly<Record<string, unknown>> | null): Receipt | null {
  if (content?.["status"] !== "success" || content["method"] !== METHOD) return null;
  const { channelId, challengeId, timestamp, settlementRef, jws, units = 0 } = content;
  const accepted = parseSatoshi(content["acceptedCumulative"]);
  const spent = parseSatoshi(content["spent"]);
  const deposit = parseSatoshi(content["deposit"]);
  if (accepted === null || spent === null || deposit === null || spent > accepted || accepted > deposit) return null;
  if (parseOutpoint(channelId) === null || typeof units !== "number") return null;
  return {
    channelId: channelId as string,
    challengeId: String(challengeId ?? ""),
    accepted,
    spent,
    deposit,
    units,
    timestamp: String(timestamp ?? ""),
    jws: typeof jws === "string" ? jws : null,
    settlement: typeof settlementRef === "string" && fromHex(settlementRef, 32) ? settlementRef : null,
  };
}

/** A channel as the server knows it. `payment` must be verified to be our own before it is used. */
export interface Snapshot {
  readonly channelId: string;
  readonly accepted: number;
  readonly spent: number;
  readonly deposit: number;
  readonly payment: Payment;
}

/** Return the snapshot in a response; null if there is none that makes sense. */
export function findSnapshot(headers: Headers): Snapshot | null {
  const text = headers.get("Payment-Session-Snapshot");
  const content = text === null || text.length > CHARACTERS_MAX ? null : decodeJson(text);
  return content && readSnapshot(content);
}

export function readSnapshot(content: Readonly<Record<string, unknown>>): Snapshot | null {
  const { channelId, channelType, payment } = content;
  const accepted = parseSatoshi(content["acceptedCumulative"]);
  const spent = parseSatoshi(content["spent"]);
  const deposit = parseSatoshi(content["deposit"]);
  if (channelType !== CHANNEL_TYPE || parseOutpoint(channelId) === null || typeof payment !== "string") return null;
  if (accepted === null || spent === null || deposit === null) return null;
  try {
    const newest = decodePayment(payment);
    if (accepted !== deposit - newest.changeValue || spent > accepted) return null;
    return { channelId: channelId as string, accepted, spent, deposit, payment: newest };
  } catch {
    return null;
  }
}

/** A refusal (RFC 9457), with our stable `code`. Amounts in satoshi, null if not told. */
export interface Problem {
  /** The type's last part, below the scheme's registry; empty if it is none of its types. */
  readonly name: string;
  readonly code: string;
  readonly detail: string;
  readonly accepted: number | null;
  readonly spent: number | null;
  readonly required: number | null;
  readonly members: Readonly<Record<string, unknown>>;
}

/** Return the problem document of an answer; what is missing or of a wrong form is left out. */
export function readProblem(text: string): Problem {
  const members = (text.length <= PROBLEM_CHARACTERS_MAX ? parseObject(text) : null) ?? {};
  const string = (name: string): string => (typeof members[name] === "string" ? members[name].slice(0, 1024) : "");
  const type = string("type");
  return {
    name: type.startsWith(TYPES) ? type.slice(TYPES.length) : "",
    code: string("code"),
    detail: string("detail") || string("title"),
    accepted: parseSatoshi(members["acceptedCumulative"]),
    spent: parseSatoshi(members["spent"]),
    required: parseSatoshi(members["requiredCumulative"]),
    members,
  };
}
