/** Signed receipts (docs/RECEIPTS.md): whose they are, what they say, and whether those of a channel are a chain. */

import { ed25519 } from "@noble/curves/ed25519.js";

import { decodeJson, encodeJson, fromBase64url, parseObject, sha256, toBase64url, utf8ToBytes } from "./core/bytes.js";
import { PaychanError } from "./core/errors.js";
import { parseSatoshi } from "./core/money.js";
import { parseOutpoint } from "./core/script.js";

/** Where a seller publishes the public keys of its receipts. */
export const WELL_KNOWN = "/.well-known/payment-receipts.json";

const ALGORITHM = "Ed25519";
const TYPE = "payment-receipt+jws";
const RECEIPT_CHARACTERS_MAX = 8192;
const HASH = /^[A-Za-z0-9_-]{43}$/;
const DIGEST = /^sha-256=:[A-Za-z0-9+/]{43}=:$/;

/** Public keys by their thumbprints (RFC 7638). */
export type ReceiptKeys = ReadonlyMap<string, Uint8Array>;

/** What a receipt says. Satoshi: amount, what the purchase cost; accepted, what the payments were worth then; spent, what was
 * charged by then, this included. time: unix seconds. body: digest of the request's body; payment: hash of the payment; both
 * may be empty, as may be previous, the hash of the receipt before it, in a channel's first. */
export interface Claims {
  readonly channelId: string;
  readonly number: number;
  readonly method: string;
  readonly resource: string;
  readonly amount: number;
  readonly accepted: number;
  readonly spent: number;
  readonly time: number;
  readonly body: string;
  readonly payment: string;
  readonly previous: string;
}

/** A channel's receipts by one key. problems: what cannot be if they are true; gaps: where some are missing; remarks: what
 * may be. */
export interface Chain {
  readonly channelId: string;
  readonly key: string;
  readonly receipts: number;
  readonly amount: number;
  readonly isWhole: boolean;
  readonly problems: readonly string[];
  readonly gaps: readonly string[];
  readonly remarks: readonly string[];
}

/** good: all are there and true. incomplete: all are true, and one in the middle is missing. bad: all else. */
export interface Verdict {
  readonly verdict: "good" | "incomplete" | "bad";
  readonly receipts: number;
  readonly amount: number;
  readonly problems: readonly string[];
  readonly chains: readonly Chain[];
}

const wrong = (what: string, cause?: unknown): PaychanError => new PaychanError("invalid_receipt", what, { cause });

/** Return the keys in a JWK, or a set of them, as a seller publishes it. Throws invalid_receipt. */
export function readKeys(text: string): ReceiptKeys {
  const content = parseObject(text);
  const listed = Array.isArray(content?.["keys"]) ? (content["keys"] as unknown[]) : [content];
  return new Map(
    listed.map((jwk) => {
      const { kty, crv, x } = (jwk ?? {}) as Record<string, unknown>;
      const key = kty === "OKP" && crv === ALGORITHM ? fromBase64url(x) : null;
      if (key?.length !== 32 || typeof x !== "string") throw wrong("this is no Ed25519 key in JWK");
      return [toBase64url(sha256(utf8ToBytes(JSON.stringify({ crv, kty, x })))), key];
    }),
  );
}

/** Return who signed a receipt and what it says. Throws invalid_receipt, which quotes nothing of it. */
export function readReceipt(text: string, keys: ReceiptKeys): { key: string; claims: Claims } {
  const [head, payload, tail, ...more] = text.split(".");
  const header = decodeJson(head);
  const signature = fromBase64url(tail);
  if (text.length > RECEIPT_CHARACTERS_MAX || header === null || !payload || signature === null || more.length > 0) {
    throw wrong("it is no JWS in compact form");
  }
  const { alg, typ, kid } = header;
  if (alg !== ALGORITHM || typ !== TYPE || typeof kid !== "string" || "crit" in header || "b64" in header)
    throw wrong("it is no receipt");
  const key = keys.get(kid);
  if (key === undefined) throw wrong("its key is not among the known ones");
  if (!isSigned(signature, utf8ToBytes(`${head}.${payload}`), key)) throw wrong("its signature does not fit");
  return { key: kid, claims: readClaims(decodeJson(payload)) };
}

function isSigned(signature: Uint8Array, message: Uint8Array, key: Uint8Array): boolean {
  try {
    return ed25519.verify(signature, message, key, { zip215: false });
  } catch {
    return false;
  }
}

function readClaims(content: Record<string, unknown> | null): Claims {
  const sense = (isRight: unknown, name: string): void => {
    if (!isRight) throw wrong(`its signature fits, and it makes no sense: ${name}`);
  };
  sense(content !== null && content["v"] === 1, "version");
  const {
    channelId,
    number,
    method,
    resource,
    iat,
    bodyDigest = "",
    paymentHash = "",
    previous = "",
  } = content as Record<string, unknown>;
  const [amount, accepted, spent] = ["amount", "acceptedCumulative", "spent"].map((name) => parseSatoshi(content?.[name]));
  sense(parseOutpoint(channelId) !== null, "channelId");
  sense(Number.isSafeInteger(number) && (number as number) >= 1, "number");
  sense(typeof method === "string" && /^[A-Z][A-Z0-9_-]{0,31}$/.test(method), "method");
  sense(typeof resource === "string" && /^[^\0-\x1f]{1,2048}$/.test(resource), "resource");
  sense(Number.isSafeInteger(iat) && (iat as number) >= 0, "iat");
  sense(bodyDigest === "" || (typeof bodyDigest === "string" && DIGEST.test(bodyDigest)), "bodyDigest");
  for (const [name, value] of [
    ["paymentHash", paymentHash],
    ["previous", previous],
  ] as const) {
    sense(value === "" || (typeof value === "string" && HASH.test(value)), name);
  }
  if (amount == null || accepted == null || spent == null || amount > spent || spent > accepted) {
    throw wrong("its signature fits, and its sums contradict each other");
  }
  return {
    channelId: channelId as string,
    number: number as number,
    method: method as string,
    resource: resource as string,
    amount,
    accepted,
    spent,
    time: iat as number,
    body: bodyDigest as string,
    payment: paymentHash as string,
    previous: previous as string,
  };
}

interface Link {
  readonly line: number;
  readonly hash: string;
  readonly claims: Claims;
}

/** Judge receipts, one a line, in the order in which they came; empty lines are left aside. */
export function examineReceipts(lines: Iterable<string>, keys: ReceiptKeys): Verdict {
  const problems: string[] = [];
  const links = new Map<string, { channelId: string; key: string; links: Link[] }>();
  let line = 0;
  for (const raw of lines) {
    line += 1;
    const text = raw.trim();
    if (text === "") continue;
    try {
      const { key, claims } = readReceipt(text, keys);
      const name = encodeJson([claims.channelId, key]);
      const found = links.get(name) ?? { channelId: claims.channelId, key, links: [] };
      found.links.push({ line, hash: toBase64url(sha256(utf8ToBytes(text))), claims });
      links.set(name, found);
    } catch (error) {
      if (!(error instanceof PaychanError)) throw error;
      problems.push(`line ${line}: ${error.message}`);
    }
  }
  const chains = [...links.values()].map((one) => judge(one.channelId, one.key, one.links));
  const sum = (of: (chain: Chain) => number): number => chains.reduce((total, chain) => total + of(chain), 0);
  const receipts = sum((chain) => chain.receipts);
  const isBad = receipts === 0 || problems.length > 0 || chains.some((chain) => chain.problems.length > 0);
  const isIncomplete = chains.some((chain) => chain.gaps.length > 0);
  return {
    verdict: isBad ? "bad" : isIncomplete ? "incomplete" : "good",
    receipts,
    amount: sum((chain) => chain.amount),
    problems,
    chains,
  };
}

function judge(channelId: string, key: string, links: readonly Link[]): Chain {
  const [problems, gaps, remarks]: [string[], string[], string[]] = [[], [], []];
  const first = links[0] as Link;
  const isWhole = first.claims.previous === "";
  if (!isWhole) remarks.push(`line ${first.line}: receipts before it are not in the file`);
  const lines = new Map(links.map((link) => [link.hash, link.line]));
  for (const [before, link] of pairs(links)) {
    const named = link.claims.previous;
    if (named === before.hash) {
      if (link.claims.time < before.claims.time) problems.push(`line ${link.line}: it is older than the receipt before it`);
    } else if (named === "") problems.push(`line ${link.line}: it begins the chain anew`);
    else if (lines.has(named)) problems.push(`line ${link.line}: it follows line ${lines.get(named)}, not line ${before.line}`);
    else gaps.push(`line ${link.line}: the receipt before it is missing`);
  }
  const seen = new Map<number, number>();
  for (const { line, claims } of links) {
    const other = seen.get(claims.number);
    if (other === undefined) seen.set(claims.number, line);
    else problems.push(`line ${line}: purchase ${claims.number} has a receipt already, line ${other}`);
  }
  for (const [before, link] of pairs([...links].sort((a, b) => a.claims.number - b.claims.number))) {
    const [old, fresh] = [before.claims, link.claims];
    if (fresh.accepted < old.accepted) {
      problems.push(`line ${link.line}: what was paid has fallen from ${old.accepted} to ${fresh.accepted} satoshi`);
    }
    const change = fresh.spent - old.spent - fresh.amount;
    if (change > 0) remarks.push(`line ${link.line}: ${change} satoshi were charged before it without a receipt here`);
    if (change < 0) remarks.push(`line ${link.line}: ${-change} satoshi were given back before it`);
  }
  const amount = links.reduce((total, link) => total + link.claims.amount, 0);
  return { channelId, key, receipts: links.length, amount, isWhole, problems, gaps, remarks };
}

const pairs = <T>(items: readonly T[]): [T, T][] => items.slice(1).map((item, at) => [items[at] as T, item]);
