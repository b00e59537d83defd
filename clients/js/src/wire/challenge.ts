/** `WWW-Authenticate: Payment`: challenges, and what those of method bitcoin, intent session ask for (docs/PAYMENT_SCHEME.md). */

import { decodeJson, fromHex } from "../core/bytes.js";
import { PaychanError } from "../core/errors.js";
import { DUST_LIMIT, parseSatoshi } from "../core/money.js";
import { findNetwork, type Network } from "../core/network.js";
import { parseOutpoint } from "../core/script.js";

export const METHOD = "bitcoin";
export const INTENT = "session";
export const CHANNEL_TYPE = "p2sh-cltv-1";
export const CURRENCY = "sat";

/** Of a header with challenges: what is longer is not looked at. */
const HEADER_CHARACTERS_MAX = 32768;

/** How many times the price a voucher may run ahead of what is required, unless the challenge says otherwise. */
const MAX_PREPAY_UNITS = 20;

const PARAMETERS = [
  "id",
  "realm",
  "method",
  "intent",
  "request",
  "expires",
  "digest",
  "opaque",
  "header",
  "description",
] as const;

/** A challenge's parameters as they stand on the wire; a credential echoes them. */
export type Challenge = { readonly [name in (typeof PARAMETERS)[number]]?: string } & {
  readonly id: string;
  readonly realm: string;
  readonly method: string;
  readonly intent: string;
  readonly request: string;
};

/** What a session costs, and how its channel must be made. Money in satoshi, times in seconds. */
export interface SessionRequest {
  /** The price of one unit. */
  readonly amount: number;
  /** The server's public key, 33 bytes. */
  readonly recipient: Uint8Array;
  readonly network: Network;
  readonly fundingConfirmations: number;
  /** No payment is taken from the channel's expiry minus this on. */
  readonly settlementPeriod: number;
  /** How far ahead the expiry must lie, beyond the settlement period. */
  readonly minDuration: number;
  readonly maxDuration: number;
  /** Spent from the start; it pays for the settlement. */
  readonly openPrice: number;
  readonly maxFunding: number | null;
  readonly minVoucherDelta: number;
  readonly maxPrepay: number;
  readonly suggestedDeposit: number | null;
  readonly unitType: string | null;
  readonly description: string | null;
  /** The base URL of the channel server, ending in /v1; a hint, never trusted. */
  readonly api: string | null;
}

/** Return the challenges of our method and intent in a response's WWW-Authenticate. */
export function findChallenges(headers: Headers): Challenge[] {
  const value = headers.get("WWW-Authenticate") ?? "";
  if (value.length > HEADER_CHARACTERS_MAX) return [];
  return [...schemes(value)]
    .filter(([scheme]) => scheme.toLowerCase() === "payment")
    .flatMap(([, parameters]) => readChallenge(parameters) ?? [])
    .filter((challenge) => challenge.method === METHOD && challenge.intent === INTENT);
}

/** Return a challenge from its parameters; null if one is missing. Such that are not known are left aside. */
export function readChallenge(parameters: Readonly<Record<string, unknown>> | null): Challenge | null {
  if (parameters === null) return null;
  const known: Record<string, string> = {};
  for (const name of PARAMETERS) {
    const value = parameters[name];
    if (value === undefined) continue;
    if (typeof value !== "string") return null;
    known[name] = value;
  }
  const { id, realm, method, intent, request } = known;
  return id && realm && method && intent && request ? { ...known, id, realm, method, intent, request } : null;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const PARAMETER = new RegExp(`(${TOKEN})[ \\t]*=[ \\t]*(?:(${TOKEN})|"((?:[^"\\\\]|\\\\.)*)")[ \\t]*(?=,|$)`, "y");
const START = new RegExp(`(${TOKEN})(?:[ ]+|(?=,|$))`, "y");
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)/y;
const GAP = /[ \t,]*/y;

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** Yield each scheme and its parameters (RFC 9110, 11.6.1); null instead of parameters if it has a token, or one stands twice. */
function* schemes(value: string): Generator<[string, Record<string, string> | null]> {
  let at = 0;
  let scheme = "";
  let parameters: Record<string, string> = {};
  let isBroken = false;
  for (;;) {
    at += match(GAP, value, at)?.[0].length ?? 0;
    if (at === value.length) break;
    const parameter = scheme ? match(PARAMETER, value, at) : null;
    if (parameter) {
      const name = (parameter[1] as string).toLowerCase();
      isBroken ||= Object.hasOwn(parameters, name);
      parameters[name] = parameter[2] ?? (parameter[3] as string).replace(/\\(.)/g, "$1");
      at += parameter[0].length;
      continue;
    }
    const start = match(START, value, at);
    if (scheme) yield [scheme, isBroken ? null : parameters];
    scheme = "";
    if (!start) break;
    [scheme, parameters, isBroken] = [start[1] as string, {}, false];
    at += start[0].length;
    const token = match(PARAMETER, value, at) ? null : match(TOKEN68, value, at);
    if (token) [isBroken, at] = [true, at + token[0].length];
  }
  if (scheme) yield [scheme, isBroken ? null : parameters];
}

/** Whether a challenge can still be answered at `now` (unix seconds). */
export function isFresh(challenge: Challenge, now: number): boolean {
  const expires = challenge.expires === undefined ? Infinity : Date.parse(challenge.expires) / 1000;
  return now < expires;
}

/** Return what a challenge asks for. Throws invalid_challenge if it makes no sense, or is of a kind that we cannot pay. */
export function readRequest(challenge: Challenge): SessionRequest {
  const content = decodeJson(challenge.request);
  if (content === null) throw unpayable("request is no JSON in base64url");
  return readSession(content);
}

/** Return what a request asks for that came as an object. Throws invalid_challenge. */
export function readSession(content: Readonly<Record<string, unknown>>): SessionRequest {
  const details = content["methodDetails"];
  if (content["currency"] !== CURRENCY) throw unpayable("currency");
  if (typeof details !== "object" || details === null) throw unpayable("methodDetails");
  const read = new Members({ ...(details as Record<string, unknown>), ...content });
  if (read.text("channelType") !== CHANNEL_TYPE) throw unpayable("channelType: this kind of channel is not known here");
  if (read.amount("dustLimit") !== DUST_LIMIT) throw unpayable("dustLimit");
  const amount = read.amount("amount");
  const recipient = /^0[23]/.test(read.text("recipient")) ? fromHex(read.text("recipient"), 33) : null;
  const network = findNetwork(read.text("chain"));
  if (amount < 1) throw unpayable("amount");
  if (recipient === null) throw unpayable("recipient");
  if (network === null) throw unpayable("chain: this chain is not known here");
  if (read.has("channelId") && parseOutpoint(read.text("channelId")) === null) throw unpayable("channelId");
  return {
    amount,
    recipient,
    network,
    fundingConfirmations: read.number("fundingConfirmations"),
    settlementPeriod: read.number("settlementPeriod"),
    minDuration: read.number("minDuration"),
    maxDuration: read.number("maxDuration"),
    openPrice: read.amount("openPrice"),
    maxFunding: read.has("maxFunding") ? read.amount("maxFunding") : null,
    minVoucherDelta: read.has("minVoucherDelta") ? read.amount("minVoucherDelta") : amount,
    maxPrepay: read.has("maxPrepay") ? read.amount("maxPrepay") : MAX_PREPAY_UNITS * amount,
    suggestedDeposit: read.has("suggestedDeposit") ? read.amount("suggestedDeposit") : null,
    unitType: read.has("unitType") ? read.text("unitType") : null,
    description: read.has("description") ? read.text("description") : null,
    api: read.has("api") ? read.text("api") : null,
  };
}

const unpayable = (what: string): PaychanError =>
  new PaychanError("invalid_challenge", `the server's challenge makes no sense: ${what}`);

class Members {
  constructor(private readonly content: Readonly<Record<string, unknown>>) {}

  has(name: string): boolean {
    return this.content[name] !== undefined && this.content[name] !== null;
  }

  text(name: string): string {
    const value = this.content[name];
    if (typeof value !== "string" || value.length > 1024) throw unpayable(name);
    return value;
  }

  amount(name: string): number {
    const value = parseSatoshi(this.content[name]);
    if (value === null) throw unpayable(name);
    return value;
  }

  number(name: string): number {
    const value = this.content[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 0xffffffff) throw unpayable(name);
    return value;
  }
}
