/** One purchase on one channel: which payment to show, and what its answer means. No I/O but the purse's; each transport
 * drives it. */

import { PaychanError, Refused } from "../core/errors.js";
import { findReceipt, findSnapshot, readProblem, type Problem } from "../wire/answer.js";
import { findChallenges, isFresh, readRequest, type Challenge, type SessionRequest } from "../wire/challenge.js";
import { openPayload, voucherPayload, type Payload } from "../wire/credential.js";
import type { Purse } from "./purse.js";
import { acceptedValue, isPending, recordTerms, signedValue, type ChannelRecord, type Order } from "./record.js";

/** done: the answer is the caller's. again: show the payment that `payload` gives now. wait: the same again, later. other: take
 * another channel. resolve: show the pending payment where it was meant to go, first. */
export type Verdict = "done" | "again" | "wait" | "other" | "resolve";

/** Of a purchase: a server that goes on to refuse what it asked for is left alone. */
const CREDENTIALS_MAX = 5;

export class Session {
  private challenge: Challenge;
  private terms: SessionRequest;
  private shown = 0;
  /** What this server may have in all, before this purchase: the newest payment, whether or not it is known to have it. */
  private floor: number;
  /** The same for the budget of one request; it does not rise. */
  private base: number;
  private target: number;
  /** Whether the server says that what was signed for this purchase had bought something else before. */
  private isTwice = false;
  /** What of this purchase's rise opens the channel. */
  private opening = 0;

  /** fixedPrice: for what buys nothing by itself (HEAD), the satoshi by which the spent value is to be covered. Else the
   * challenge's. cost: what the same cost the last time, if that is known: some requests take several units. */
  constructor(
    private readonly purse: Purse,
    private record: ChannelRecord,
    challenge: Challenge,
    readonly order: Order,
    private readonly fixedPrice: number | null = null,
    private cost = 0,
  ) {
    this.challenge = challenge;
    this.terms = readRequest(challenge);
    this.floor = this.base = signedValue(record);
    this.target = isPending(record) ? this.floor : this.wanted();
  }

  get channel(): number {
    return this.record.number;
  }

  get key(): string {
    return this.order.key;
  }

  get answered(): Challenge {
    return this.challenge;
  }

  /** What this purchase costs in satoshi, as far as is known: the challenge's price, or several units of it. */
  get price(): number {
    return this.fixedPrice ?? Math.max(this.terms.amount, this.cost);
  }

  private get isBuying(): boolean {
    return this.fixedPrice === null;
  }

  private get isOpening(): boolean {
    return this.record.phase === "funded";
  }

  /** Return what must be signed in all for this purchase: from the credit as far as it reaches, but a rise is one the server
   * takes. */
  private wanted(): number {
    const spent = this.isOpening ? this.terms.openPrice : this.record.spent;
    const accepted = acceptedValue(this.record);
    const target = spent + this.price;
    if (target <= accepted) return accepted;
    return this.isOpening ? target : Math.max(target, accepted + this.terms.minVoucherDelta);
  }

  /** More than this is never signed in this purchase, whatever the server says. */
  private get limit(): number {
    const opening = this.isOpening && this.record.accepted === null ? this.terms.openPrice : 0;
    return this.floor + Math.max(this.price, this.terms.minVoucherDelta) + opening;
  }

  /** Sign what is to be shown next, durably. Throws over_budget, used_up, state, refused. */
  async payload(): Promise<Payload> {
    if (this.shown >= CREDENTIALS_MAX) throw new PaychanError("misbehaved", "the server refuses what it has asked for");
    this.shown += 1;
    if (this.target > this.limit) {
      throw new PaychanError(
        "misbehaved",
        `the server asks for ${this.target - this.floor} satoshi, its challenge says ${this.price}`,
      );
    }
    if (this.isOpening && this.base === 0) this.opening = Math.min(this.terms.openPrice, this.target);
    this.record = await this.purse.sign(this.record.number, this.target, this.order, this.isBuying, this.base, this.opening);
    const terms = recordTerms(this.record);
    const text = this.record.signed as string;
    return this.isOpening ? openPayload(terms, this.record.changeAddress, text) : voucherPayload(terms, text);
  }

  /** Book an answer, and say what follows. A 503, or none, is no answer: the caller shows the same again. Throws refused,
   * misbehaved. */
  async judge(response: Response): Promise<Verdict> {
    const receipt = response.ok ? findReceipt(response.headers) : null;
    if (receipt !== null) {
      this.record = await this.purse.book(this.channel, receipt, this.isBuying, this.isTwice);
      return "done";
    }
    if (response.status !== 402) {
      const problem = isProblem(response) ? readProblem(await response.clone().text()) : null;
      this.record = await this.purse.learn(this.channel, problem?.accepted ?? null, problem?.spent ?? null, this.isBuying);
      return "done";
    }
    const snapshot = findSnapshot(response.headers);
    const problem = readProblem(await response.clone().text());
    const wasFresh = isFresh(this.challenge, this.purse.now());
    this.take(response);
    if (!wasFresh && problem.name === "" && snapshot === null) return "again"; // answers to HEAD have no document
    if (snapshot === null) return this.refusal(response, problem);
    const before = signedValue(this.record);
    this.record = await this.purse.adopt(this.channel, snapshot);
    if (this.record.hold) throw new PaychanError("misbehaved", this.record.hold);
    if (signedValue(this.record) > before) this.floor = this.base = signedValue(this.record);
    this.target = this.wanted();
    return "again";
  }

  /** A request may take several units: as many as a payment may be ahead by, and as the budgets allow. Throws misbehaved. */
  private agree(problem: Problem): void {
    if (problem.required === null || !this.isBuying) return;
    const opening = this.isOpening ? this.terms.openPrice : 0;
    const told = problem.required - Math.max(this.record.spent, opening);
    if (told > this.terms.amount + this.terms.maxPrepay) {
      throw new PaychanError("misbehaved", `the server asks for ${told} satoshi, its challenge says ${this.terms.amount}`);
    }
    this.cost = Math.max(this.cost, told);
  }

  /** Signatures are deterministic: another copy of this wallet may have signed, and used, the very payment that was signed
   * here. So the price is paid once more, but once only, and a server that says so time after time is left alone. */
  private async allowTwice(problem: Problem): Promise<void> {
    const signed = signedValue(this.record);
    if (this.isTwice || problem.accepted !== signed || signed <= this.base) return;
    this.isTwice = true;
    this.record = await this.purse.doubt(this.channel);
    if (this.record.hold) throw new PaychanError("misbehaved", this.record.hold);
    this.floor = signed;
  }

  /** Go on from what a pending payment's own answer said. */
  resolved(record: ChannelRecord): void {
    this.record = record;
    this.target = this.wanted();
  }

  /** Take over a fresh challenge, which may ask for another price: budgets are asked again before anything is signed for it. */
  private take(response: Response): void {
    const [fresh] = findChallenges(response.headers);
    if (fresh === undefined) return;
    const terms = readRequest(fresh);
    if (terms.recipient.join() !== this.terms.recipient.join() || terms.network !== this.terms.network) return;
    this.challenge = fresh;
    this.terms = terms;
  }

  private async refusal(response: Response, problem: Problem): Promise<Verdict> {
    const refused = new Refused(response.status, problem.members);
    switch (problem.name) {
      case "session/insufficient-balance":
      case "session/delta-too-small":
      case "payment-insufficient": {
        this.record = await this.purse.learn(this.channel, problem.accepted, problem.spent, false);
        this.agree(problem);
        await this.allowTwice(problem);
        this.target = Math.max(this.wanted(), problem.required ?? 0);
        if (this.target <= signedValue(this.record)) throw refused;
        return "again";
      }
      case "invalid-challenge":
      case "payment-expired":
      case "payment-required":
        this.target = Math.max(this.target, Math.min(this.wanted(), this.limit));
        return "again";
      case "payment-action-required":
        return "wait";
      case "session/channel-not-found":
        if (this.isOpening) throw refused;
        await this.purse.end(this.channel);
        return "other";
      case "session/channel-finalized":
        await this.purse.end(this.channel);
        return "other";
      case "session/amount-exceeds-deposit":
        return "other";
      default:
        if (problem.code === "funding_not_found") return "wait";
        if (problem.code === "prepay_too_large" && isPending(this.record)) return "resolve";
        throw refused;
    }
  }
}

export function isProblem(response: Response): boolean {
  return (response.headers.get("Content-Type") ?? "").startsWith("application/problem+json");
}
