/** `fetch` that pays: one round trip once a challenge is known, every payment on disk before it is sent, unknown outcomes
 * sent again. */

import { sha256, toHex, utf8ToBytes } from "../core/bytes.js";
import { NeedsFunding, PaychanError, Refused } from "../core/errors.js";
import { findReceipt, findSnapshot, readProblem } from "../wire/answer.js";
import { findChallenges, isFresh, readRequest, type Challenge, type SessionRequest } from "../wire/challenge.js";
import { credentialHeader, renderCredential, voucherPayload, type Payload } from "../wire/credential.js";
import type { Purse } from "./purse.js";
import { isPending, recordTerms, resumed, type ChannelRecord, type Order } from "./record.js";
import { Session } from "./session.js";

const BODY_BYTES_MAX = 64 << 20;
const KNOWN_MAX = 1000;
const CHANNELS_MAX = 3;

/** Milliseconds: how long an unknown outcome is asked after, and the pauses between. */
const PATIENCE = 30_000;
const PAUSE_FIRST = 100;
const PAUSE_MOST = 5_000;

export interface HttpSettings {
  /** What sends requests; without it, the platform's fetch. */
  readonly fetch?: typeof fetch;
  /** Milliseconds for which a payment is sent again while its outcome is unknown, or its funding not deep enough. */
  readonly patience?: number;
}

/** The challenge of a place, and what was paid there the last time. */
interface Known {
  readonly challenge: Challenge;
  readonly cost: number;
}

/** A request that can be sent many times. */
interface Prepared {
  readonly url: string;
  readonly method: string;
  readonly headers: Headers;
  readonly body: ArrayBuffer | undefined;
  readonly init: RequestInit;
  readonly fingerprint: string;
}

export class HttpPayer {
  /** Streams that are running: they stay on their channel. */
  streams = 0;
  private readonly known = new Map<string, Known>();
  /** By origin: the channel that paid last, once it was seen to those that it has taken over from. */
  private readonly paying = new Map<string, number>();

  constructor(
    readonly purse: Purse,
    private readonly settings: HttpSettings,
  ) {}

  /** As the platform's fetch; what is answered 402 with a challenge of ours is paid for, within the budgets.
   *
   * Throws whatever fetch does where nothing was signed, and PaychanError: needs_funding, funding_pending, over_budget, refused,
   * misbehaved, outcome_unknown (then the same call again is the same purchase), state.
   */
  async fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    let request = await prepare(input, init);
    let known = this.recall(request);
    if (known === null) {
      const response = await this.send(request, null);
      const [found] = response.status === 402 ? findChallenges(response.headers) : [];
      if (found === undefined) return response;
      request = { ...request, url: response.url || request.url };
      known = { challenge: found, cost: 0 };
    }
    return this.buy(request, known);
  }

  /** Have a channel accept `required` satoshi in all, and buy nothing: by HEAD, for streams. */
  async voucher(
    url: string,
    isMeant: (record: ChannelRecord) => boolean,
    required: (record: ChannelRecord, terms: SessionRequest) => number,
  ): Promise<void> {
    const request = await prepare(url, { method: "HEAD" });
    const challenge = this.recall({ ...request, method: "GET" })?.challenge ?? (await this.ask(url, "GET"));
    await this.inLine(url, async () => {
      const record = (await this.purse.channels()).find(isMeant);
      if (record === undefined)
        throw new PaychanError("invalid_record", "the stream is paid by a channel that is not known here");
      const price = required(record, readRequest(challenge)) - record.spent;
      const session = new Session(this.purse, record, challenge, newOrder(request), Math.max(price, 0));
      if ((await this.exchange(request, session)) === null)
        throw new PaychanError("refused", "the channel takes no payment any more");
    });
  }

  /** Return the challenge of a resource, asked for without paying. Throws invalid_challenge. */
  async ask(url: string, method: string): Promise<Challenge> {
    for (const way of ["HEAD", method]) {
      const response = await this.send(await prepare(url, { method: way }), null);
      const [challenge] = findChallenges(response.headers);
      await response.body?.cancel();
      if (challenge !== undefined) return challenge;
    }
    throw new PaychanError("invalid_challenge", `${url} asks for no payment`);
  }

  private async buy(request: Prepared, known: Known): Promise<Response> {
    const shunned = new Set<number>();
    let { challenge, cost } = known;
    const work = async (): Promise<Response> => {
      while (shunned.size < CHANNELS_MAX) {
        const record = await this.chooseFor(challenge, newOrder(request), shunned, cost);
        const session = new Session(this.purse, record, challenge, resumed(record, newOrder(request)), null, cost);
        const response = await this.exchange(request, session);
        if (response !== null) return response;
        [challenge, cost] = [session.answered, session.price];
        shunned.add(record.number);
      }
      throw new PaychanError("misbehaved", "the server refuses one channel after the other");
    };
    return this.inLine(request.url, work, request.init.signal);
  }

  /** Do some work while nobody else pays this server. A channel that it needs is paid for outside the line, and then it is done
   * again: others go on with what there is. Throws what the work does, what `fund` does. */
  async inLine<T>(url: string, work: () => Promise<T>, signal?: AbortSignal | null): Promise<T> {
    for (let paid = 0; ; paid += 1) {
      try {
        return await this.purse.store.exclusively(lockOf(url), work);
      } catch (error) {
        if (!(error instanceof NeedsFunding) || !this.purse.settings.fund || paid === CHANNELS_MAX) throw error;
        await Promise.race([this.purse.fund(error.channel), aborted(signal)]);
      }
    }
  }

  /** See to the channels after a purchase: the next one is prepared if this one will not last, and what was left behind is closed,
   * so that its change comes back. Nobody waits for it, and what fails is told when it is needed. */
  lookAhead(session: Session): void {
    const { origin } = new URL(session.order.url);
    const work = async (): Promise<void> => {
      const terms = readRequest(session.answered);
      const cost = Math.max(terms.amount, terms.minVoucherDelta, session.price);
      await this.purse.prepare(session.channel, terms, session.order, cost);
      if (this.streams > 0 || this.paying.get(origin) === session.channel) return;
      for (const one of await this.purse.leftBehind(session.channel, terms, cost)) {
        this.close(one.number, 0).catch(() => undefined);
      }
      this.paying.set(origin, session.channel);
    };
    this.purse.store.exclusively(lockOf(origin), work).catch(() => undefined);
  }

  /** Return a channel that can pay for a challenge, its newest payment known. Throws needs_funding, over_budget,
   * invalid_challenge. */
  async chooseFor(
    challenge: Challenge,
    order: Order,
    shunned: ReadonlySet<number> = new Set(),
    cost = 0,
  ): Promise<ChannelRecord> {
    const terms = readRequest(challenge);
    checkTransport(order.url);
    for (;;) {
      const needed = Math.max(terms.amount, terms.minVoucherDelta, cost);
      const record = await this.purse.choose(terms, order, needed, shunned);
      if (!record.isStale) return record;
      await this.recover(record);
    }
  }

  /** Ask the server for the newest payment of a channel that comes from a backup, with one that is worth nothing. */
  async recover(record: ChannelRecord): Promise<ChannelRecord> {
    const response = await this.manage(record, voucherPayload(recordTerms(record), this.purse.worthless(record)));
    const snapshot = findSnapshot(response.headers);
    if (snapshot !== null) {
      const adopted = await this.purse.adopt(record.number, snapshot);
      if (adopted.hold) throw new PaychanError("misbehaved", adopted.hold);
      return adopted;
    }
    const problem = readProblem(await response.text());
    if (problem.name === "session/channel-not-found" && record.phase === "funded") return this.purse.trust(record.number);
    if (problem.name === "session/channel-not-found" || problem.name === "session/channel-finalized")
      return this.purse.end(record.number);
    throw new Refused(response.status, problem.members);
  }

  /** Have a channel settled. Returns the settlement's txid. Throws refused, outcome_unknown (then the same call again is
   * safe). patience: milliseconds, instead of the settings'. */
  async close(number: number, patience?: number): Promise<string> {
    const { origin } = await this.purse.channel(number);
    return this.purse.store.exclusively(lockOf(origin), async () => {
      let record = await this.purse.channel(number);
      if (record.isStale) record = await this.recover(record);
      if (isPending(record)) record = await this.resolve(record);
      if (record.phase !== "open" || record.accepted === null) throw new PaychanError("refused", `channel ${number} is not open`);
      for (let attempt = 0; ; attempt += 1) {
        const payload = voucherPayload(recordTerms(record), record.accepted as string, "close");
        const response = await this.manage(record, payload, patience);
        const receipt = response.ok ? findReceipt(response.headers) : null;
        if (receipt?.settlement) {
          await this.purse.book(number, receipt, false);
          return receipt.settlement;
        }
        const problem = readProblem(await response.text());
        if (problem.code !== "not_newest_payment" || attempt > 0) throw new Refused(response.status, problem.members);
        record = await this.recover(record);
      }
    });
  }

  /** Show a pending payment, by HEAD, which buys nothing, where it was meant to go. */
  private async resolve(record: ChannelRecord): Promise<ChannelRecord> {
    if (record.phase === "funded" || record.signed === null) return record;
    const request = await prepare(record.url, { method: "HEAD" });
    const payload = voucherPayload(recordTerms(record), record.signed);
    const response = await this.persist(request, await this.ask(record.url, record.method), payload, newOrder(request).key);
    const receipt = response.ok ? findReceipt(response.headers) : null;
    if (receipt) return this.purse.book(record.number, receipt, false);
    const snapshot = findSnapshot(response.headers);
    return snapshot ? this.purse.adopt(record.number, snapshot) : record;
  }

  /** Send a credential that buys nothing to where the channel was used last. */
  private async manage(record: ChannelRecord, payload: Payload, patience?: number): Promise<Response> {
    const request = await prepare(record.url, { method: record.method });
    return this.persist(request, await this.ask(record.url, record.method), payload, newOrder(request).key, patience);
  }

  /** Show payments until the answer is the caller's; null if another channel must pay. */
  private async exchange(request: Prepared, session: Session): Promise<Response | null> {
    const patience = this.patience();
    for (;;) {
      const payload = await session.payload().catch(nullIfUsedUp);
      if (payload === null) return null;
      let response = await this.persist(request, session.answered, payload, session.key);
      let verdict = await session.judge(response);
      while (verdict === "wait") {
        if (!(await patience.pause(response, request.init.signal))) {
          throw new PaychanError("funding_pending", "the channel's funding is not confirmed enough yet: try again later");
        }
        response = await this.persist(request, session.answered, payload, session.key);
        verdict = await session.judge(response);
      }
      if (verdict === "done") {
        this.remember(request, session);
        this.lookAhead(session);
        return response;
      }
      if (verdict === "other") return null;
      if (verdict === "resolve") session.resolved(await this.resolve(await this.purse.channel(session.channel)));
    }
  }

  private async persist(
    request: Prepared,
    challenge: Challenge,
    payload: Payload,
    key?: string,
    milliseconds?: number,
  ): Promise<Response> {
    const patience = this.patience(milliseconds);
    for (;;) {
      const response = await this.send(request, { challenge, payload, key }).catch((error: unknown) => {
        if (request.init.signal?.aborted) throw error;
        return null;
      });
      if (response !== null && response.status !== 503) return response;
      if (!(await patience.pause(response, request.init.signal))) {
        throw new PaychanError(
          "outcome_unknown",
          `${request.url}: no answer to a payment; the same request again is the same purchase`,
        );
      }
    }
  }

  private patience(milliseconds = this.settings.patience ?? PATIENCE): Patience {
    return new Patience(milliseconds);
  }

  private async send(
    request: Prepared,
    paid: { challenge: Challenge; payload: Payload; key?: string | undefined } | null,
  ): Promise<Response> {
    const headers = new Headers(request.headers);
    const init: RequestInit = { ...request.init, method: request.method, headers };
    if (request.body !== undefined) init.body = request.body;
    if (paid) {
      checkTransport(request.url);
      headers.set(credentialHeader(paid.challenge), renderCredential(paid.challenge, paid.payload));
      if (paid.key) headers.set("Idempotency-Key", paid.key);
      init.redirect = "manual"; // a payment is worth something to whoever gets it: it goes where it was meant to go
      init.cache = "no-store";
    }
    return (this.settings.fetch ?? fetch)(request.url, init);
  }

  /** Return the challenge that answers this request: its own, or that of a neighbour, which mostly costs the same. */
  private recall(request: Prepared): Known | null {
    const now = this.purse.now();
    for (const place of places(request)) {
      const found = this.known.get(place);
      if (found && isFresh(found.challenge, now)) return found;
    }
    return null;
  }

  private remember(request: Prepared, session: Session): void {
    const [own, neighbours] = places(request);
    for (const [place, cost] of [
      [own, session.price],
      [neighbours, 0],
    ] as const) {
      this.known.delete(place);
      this.known.set(place, { challenge: session.answered, cost });
    }
    while (this.known.size > KNOWN_MAX) this.known.delete(this.known.keys().next().value as string);
  }
}

/** Time that is left for waiting, spent in growing pauses. */
class Patience {
  private readonly end: number;
  private next = PAUSE_FIRST;

  constructor(milliseconds: number) {
    this.end = Date.now() + milliseconds;
  }

  /** Wait as long as the server says, or a little longer each time; false if there is no time left. Rejects if aborted. */
  async pause(response: Response | null, signal?: AbortSignal | null): Promise<boolean> {
    const asked = Number(response?.headers.get("Retry-After")) * 1000;
    const pause = Math.min(Math.max(this.next, Number.isFinite(asked) ? asked : 0), PAUSE_MOST);
    this.next = Math.min(this.next * 2, PAUSE_MOST);
    if (Date.now() + pause > this.end) return false;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, pause);
      signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
    });
    return true;
  }
}

/** Reject once a request is given up, for ever pending otherwise. */
function aborted(signal?: AbortSignal | null): Promise<never> {
  return new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function nullIfUsedUp(error: unknown): null {
  if (error instanceof PaychanError && error.code === "used_up") return null;
  throw error;
}

/** One purchase at a time with a server: a channel is one sequence. */
const lockOf = (url: string): string => `server ${new URL(url).origin}`;

function places(request: Prepared): [string, string] {
  const url = new URL(request.url);
  const directory = url.pathname.slice(0, url.pathname.lastIndexOf("/") + 1);
  return [`${request.method} ${url.origin}${url.pathname}`, `${request.method} ${url.origin}${directory}*`];
}

/** Payments go over TLS, or stay on this machine. */
function checkTransport(url: string): void {
  const { protocol, hostname } = new URL(url);
  const isLocal = hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]" || /^127\./.test(hostname);
  if (protocol !== "https:" && !isLocal)
    throw new PaychanError("invalid_challenge", `${hostname}: payments are sent over https only`);
}

async function prepare(input: RequestInfo | URL, init?: RequestInit): Promise<Prepared> {
  const request = new Request(input, init);
  const body = request.body === null && !init?.body ? undefined : await request.clone().arrayBuffer();
  if (body && body.byteLength > BODY_BYTES_MAX)
    throw new PaychanError("body_too_large", "a paid request's body is at most 64 MiB");
  const { credentials, mode, referrerPolicy, signal, keepalive, integrity } = request;
  const rest: RequestInit = { credentials, referrerPolicy, signal, keepalive, integrity, redirect: request.redirect };
  if (mode !== "navigate") rest.mode = mode;
  const hash = body && body.byteLength > 0 ? toHex(sha256(new Uint8Array(body))) : "";
  return {
    url: request.url,
    method: request.method,
    headers: new Headers(request.headers),
    body: body && body.byteLength > 0 ? body : undefined,
    init: rest,
    fingerprint: toHex(sha256(utf8ToBytes(`${request.method} ${request.url} ${hash}`))),
  };
}

function newOrder(request: Prepared): Order {
  return { method: request.method, url: request.url, key: crypto.randomUUID(), request: request.fingerprint };
}
