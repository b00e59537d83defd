/** The purse: words, keys and channels in a storage. It signs, durably, and books what servers answer; it sends nothing. */

import { parseObject, toHex } from "../core/bytes.js";
import { NeedsFunding, PaychanError } from "../core/errors.js";
import { checkSatoshi, DUST_LIMIT, isExpiry } from "../core/money.js";
import { decodeAddress, findNetwork, type Network, type NetworkName } from "../core/network.js";
import { encodePayment, signPayment, verifyPayment } from "../core/payment.js";
import { makeRefund, type Refund } from "../core/transaction.js";
import { keyAddress, Wallet } from "../core/wallet.js";
import type { Store } from "../store/store.js";
import type { Receipt, Snapshot } from "../wire/answer.js";
import type { SessionRequest } from "../wire/challenge.js";
import { endsAt, isLow, isTooLate, MARGIN_SECONDS } from "./ahead.js";
import { addSigning, budgetOf, checkBudgets, DAY, exceeded, HOUR, signedSince, type Budgets, type Purchase } from "./budget.js";
import { needOf, readFunding, type FundingAnswer, type FundingNeed } from "./funding.js";
import {
  acceptedValue,
  cumulative,
  parseRecord,
  isPending,
  recordName,
  recordNetwork,
  recordTerms,
  signedValue,
  type ChannelRecord,
  type Order,
} from "./record.js";

const WALLET = "wallet";
const CHANNEL = /^channel-(0|[1-9][0-9]*)$/;
const BLOCK_SECONDS = 600;

/** Confirmations may take so many times longer than they should, and the channel must still be young enough to be opened then. */
const BLOCK_PATIENCE = 6;

const CHANNEL_DAYS = 7;
const DOUBTS_MAX = 3;

/** Without a suggestion of the server's, so many times its price are locked up. */
const DEPOSIT_PRICES = 100;

export interface PurseSettings {
  readonly store: Store;
  readonly network: NetworkName;
  readonly budgets: Budgets;
  /** Twelve words, for a new storage: the wallet of a backup. Without them, new ones are made. */
  readonly words?: string;
  /** Pays for a channel: when the first purchase needs one, and ahead, when the one in use runs low, which is used meanwhile. After
   * a failure or a crash it may be told of the same channel again: it looks first for what it paid to that address before. Without
   * it, `needs_funding` is thrown, and `funded` is called once somebody has paid. */
  readonly fund?: (need: FundingNeed) => Promise<FundingAnswer>;
  /** Without `fund`: told once, when the channel in use runs low, what should be paid for the next. */
  readonly onLow?: (need: FundingNeed) => unknown;
  /** Asked for what exceeds the budgets. Without it, that is refused. */
  readonly ask?: (purchase: Purchase) => boolean | Promise<boolean>;
  /** Satoshi to lock up in a channel; without it what the server suggests, or 100 times its price. */
  readonly deposit?: number;
  /** How long a channel shall live; without it 7 days, within the server's bounds. */
  readonly days?: number;
  /** Where change goes; without it, to an address of each channel's own key. */
  readonly changeAddress?: string;
  /** Unix seconds; for tests. */
  readonly now?: () => number;
}

export class Purse {
  readonly network: Network;
  readonly store: Store;
  private readonly known = new Map<number, { text: string; record: ChannelRecord }>();
  /** By channel: the funding that `fund` was asked for, and has not answered. */
  private readonly asked = new Map<number, Promise<ChannelRecord>>();
  private readonly told = new Set<number>();

  private constructor(
    readonly settings: PurseSettings,
    private readonly wallet: Wallet,
  ) {
    this.store = settings.store;
    this.network = findNetwork(settings.network) as Network;
  }

  /** Open the purse in a storage; made if there is none. Throws invalid_key if it is the purse of other words,
   * invalid_amount, state. */
  static async open(settings: PurseSettings): Promise<Purse> {
    const network = findNetwork(settings.network);
    if (network === null) throw new PaychanError("invalid_address", "network must be live, test, testnet4, signet or regtest");
    checkBudgets(settings.budgets);
    if (settings.changeAddress !== undefined) decodeAddress(network, settings.changeAddress);
    const wallet = await settings.store.exclusively(WALLET, async () => {
      const stored = parseObject((await settings.store.read(WALLET)) ?? "null");
      const wanted = settings.words === undefined ? null : Wallet.restore(settings.words);
      if (stored !== null) {
        const found = Wallet.restore(String(stored["words"]));
        if (wanted && wanted.words !== found.words) throw new PaychanError("invalid_key", "this storage has other words");
        return found;
      }
      const made = wanted ?? Wallet.create();
      await settings.store.write(WALLET, JSON.stringify({ version: 1, words: made.words }));
      return made;
    });
    return new Purse(settings, wallet);
  }

  get words(): string {
    return this.wallet.words;
  }

  now(): number {
    return this.settings.now?.() ?? Math.floor(Date.now() / 1000);
  }

  /** Return all channels, by number. Throws invalid_record. */
  async channels(): Promise<ChannelRecord[]> {
    const numbers = (await this.store.names()).flatMap((name) =>
      CHANNEL.test(name) ? [Number(name.slice("channel-".length))] : [],
    );
    const found = await Promise.all(numbers.sort((a, b) => a - b).map((number) => this.find(number)));
    return found.filter((record) => record !== null);
  }

  /** Return channel `number`. Throws invalid_record, also if there is none. */
  async channel(number: number): Promise<ChannelRecord> {
    const record = await this.find(number);
    if (record === null) throw new PaychanError("invalid_record", `there is no channel ${number}`);
    return record;
  }

  private async find(number: number): Promise<ChannelRecord | null> {
    const text = await this.store.read(`channel-${number}`);
    if (text === null) return null;
    const known = this.known.get(number);
    if (known?.text === text) return known.record;
    const record = parseRecord(text, (one) => this.wallet.key(recordNetwork(one), one.number).pubkey);
    this.known.set(number, { text, record });
    return record;
  }

  /** Make a record durable, and return it. */
  async save(record: ChannelRecord): Promise<ChannelRecord> {
    const text = JSON.stringify(record);
    await this.store.write(`channel-${record.number}`, text);
    this.known.set(record.number, { text, record });
    return record;
  }

  /** Return a channel with this server that can pay `needed` satoshi more, one that exists or a new one. Throws
   * needs_funding, over_budget. */
  async choose(terms: SessionRequest, order: Order, needed: number, shunned: ReadonlySet<number>): Promise<ChannelRecord> {
    if (terms.network !== this.network) {
      throw new PaychanError("invalid_challenge", `the server is on ${terms.network.name}, this purse on ${this.network.name}`);
    }
    const { origin } = new URL(order.url);
    const [best] = (await this.usable(terms, origin, needed)).filter((one) => !shunned.has(one.number));
    if (best && best.phase !== "unfunded") return best;
    const over = best ? null : await this.overBudget(terms, order, needed);
    if (over) await this.ask(over);
    const need = needOf(best ?? (await this.create(terms, order, needed)));
    throw new NeedsFunding(need.channel, need.address, need.value, need.uri, need);
  }

  /** Return the channels that can pay `needed` satoshi more to a server, in the order in which they are tried. */
  private async usable(terms: SessionRequest, origin: string, needed: number): Promise<ChannelRecord[]> {
    const rank = { open: 0, funded: 1, unfunded: 2, over: 3 };
    return (await this.channels())
      .filter((one) => this.fits(one, terms, origin, needed))
      .sort((a, b) => rank[a.phase] - rank[b.phase] || a.expTime - b.expTime);
  }

  private fits(record: ChannelRecord, terms: SessionRequest, origin: string, needed: number): boolean {
    if (record.phase === "over" || record.hold !== "" || record.origin !== origin) return false;
    if (record.chain !== terms.network.chain || record.serverPubkey !== toHex(terms.recipient)) return false;
    if (endsAt(record, terms) <= this.now()) return false;
    if (record.phase === "unfunded") return record.plannedValue >= needed + terms.openPrice + DUST_LIMIT;
    const more = record.phase === "open" ? needed : needed + terms.openPrice;
    const target = Math.max(acceptedValue(record), record.spent + more);
    return target <= (record.funding?.value ?? 0) - DUST_LIMIT || signedValue(record) >= target;
  }

  private isLow(record: ChannelRecord, terms: SessionRequest, cost: number): boolean {
    return isLow(record, terms, cost, this.now(), (this.settings.days ?? CHANNEL_DAYS) * DAY);
  }

  /** Make the next channel if channel `number` will not last, and have it paid for; nobody waits for that, and the old one goes on
   * paying. There is one ahead with a server at most, and nobody is asked again for it before it is needed. cost: of a purchase. */
  async prepare(number: number, terms: SessionRequest, order: Order, cost: number): Promise<void> {
    const { fund, onLow } = this.settings;
    if ((!fund && !onLow) || !this.isLow(await this.channel(number), terms, cost)) return;
    const { origin } = new URL(order.url);
    const others = (await this.usable(terms, origin, 0)).filter(
      (one) => one.number !== number && (one.phase !== "open" || this.fits(one, terms, origin, cost)),
    );
    let [next] = others;
    if (next === undefined) {
      if (await this.overBudget(terms, order, cost)) return;
      next = await this.create(terms, order, cost);
      if (fund) this.fund(next.number).catch(() => undefined);
    }
    if (fund || next.phase !== "unfunded" || this.told.has(next.number)) return;
    this.told.add(next.number);
    Promise.resolve(onLow?.(needOf(next))).catch(() => undefined);
  }

  /** Return the channels that another one has taken over from, and that have too little left for a purchase of `cost`; what is
   * pending on them is known. */
  async leftBehind(number: number, terms: SessionRequest, cost: number): Promise<ChannelRecord[]> {
    const { origin, phase } = await this.channel(number);
    if (phase !== "open") return [];
    return (await this.channels()).filter(
      (one) =>
        one.number !== number &&
        one.phase === "open" &&
        one.origin === origin &&
        one.hold === "" &&
        !one.isStale &&
        !isPending(one) &&
        one.purchase === null &&
        !this.fits(one, terms, origin, cost) &&
        this.isLow(one, terms, 0),
    );
  }

  /** Agree on a new channel, within the server's bounds and ours. */
  private async create(terms: SessionRequest, order: Order, needed: number): Promise<ChannelRecord> {
    const least = terms.openPrice + needed + DUST_LIMIT;
    const most = Math.min(terms.maxFunding ?? Infinity, budgetOf(this.settings.budgets, "deposit"));
    const suggested = terms.suggestedDeposit ?? terms.openPrice + DEPOSIT_PRICES * terms.amount;
    const value = Math.min(Math.max(this.settings.deposit ?? suggested, least), most);
    if (value < least) throw new PaychanError("over_budget", `a channel needs ${least} satoshi, allowed are ${most}`);
    const expTime = this.expiry(terms);
    return this.store.exclusively(WALLET, async () => {
      const records = await this.channels();
      const number = Math.max(-1, ...records.map((one) => one.number)) + 1;
      const { pubkey } = this.wallet.key(this.network, number);
      return this.save({
        version: 1,
        number,
        origin: new URL(order.url).origin,
        chain: terms.network.chain,
        serverPubkey: toHex(terms.recipient),
        clientPubkey: toHex(pubkey),
        expTime,
        changeAddress: this.settings.changeAddress ?? keyAddress(this.network, pubkey),
        settlementPeriod: terms.settlementPeriod,
        fundingConfirmations: terms.fundingConfirmations,
        openPrice: terms.openPrice,
        plannedValue: value,
        funding: null,
        phase: "unfunded",
        signed: null,
        accepted: null,
        spent: 0,
        purchase: null,
        method: order.method,
        url: order.url,
        isStale: false,
        doubts: 0,
        hold: "",
        settlement: null,
        signings: [],
      });
    });
  }

  private expiry(terms: SessionRequest): number {
    const least = terms.minDuration + 2 * MARGIN_SECONDS + terms.fundingConfirmations * BLOCK_SECONDS * BLOCK_PATIENCE;
    const most = terms.maxDuration - MARGIN_SECONDS;
    const expTime =
      this.now() + terms.settlementPeriod + Math.min(Math.max((this.settings.days ?? CHANNEL_DAYS) * DAY, least), most);
    if (most < terms.minDuration + 2 * MARGIN_SECONDS || !isExpiry(expTime))
      throw new PaychanError("invalid_challenge", "the server's durations make no sense");
    return Math.floor(expTime);
  }

  /** Have a channel paid for by `fund`, which is asked once at a time; who asks meanwhile waits for the same. Throws what it
   * throws, invalid_transaction. */
  fund(number: number): Promise<ChannelRecord> {
    const known = this.asked.get(number);
    if (known) return known;
    const asked = this.store
      .exclusively(`funding ${number}`, async () => {
        const record = await this.channel(number);
        if (record.funding !== null || !this.settings.fund) return record;
        return this.funded(number, await this.settings.fund(needOf(record)));
      })
      .finally(() => this.asked.delete(number));
    this.asked.set(number, asked);
    return asked;
  }

  /** Note that a channel was paid for; what was noted first stays. Throws invalid_transaction if the transaction does not pay
   * to its address. */
  async funded(number: number, answer: FundingAnswer): Promise<ChannelRecord> {
    return this.store.exclusively("budget", async () => {
      const record = await this.channel(number);
      if (record.funding !== null) return record;
      const funding = readFunding(record, answer);
      return this.save({ ...record, funding: { ...funding.outpoint, value: funding.value }, phase: "funded" });
    });
  }

  /** Return the purchase that opening a channel would be, if it exceeds the budgets: nothing is locked up for it then. */
  private async overBudget(terms: SessionRequest, order: Order, needed: number): Promise<Purchase | null> {
    const { host } = new URL(order.url);
    const step = { value: terms.openPrice + needed, openPrice: terms.openPrice, request: needed };
    const over = exceeded(this.settings.budgets, await this.channels(), this.now(), host, step);
    return over.length > 0 ? { url: order.url, host, value: step.value, openPrice: step.openPrice, over } : null;
  }

  /** Ask about what exceeds the budgets. Throws over_budget if nobody allows it. */
  private async ask(purchase: Purchase): Promise<void> {
    if (await this.settings.ask?.(purchase)) return;
    const names = purchase.over.join(", ");
    throw new PaychanError("over_budget", `${purchase.value} satoshi for ${purchase.url} exceed the budget: ${names}`);
  }

  /** Sign a payment that is worth `target` in all, within the budgets, and make it durable. Throws over_budget, used_up,
   * invalid_amount, state.
   *
   * floor: what was signed before this purchase; openPrice: satoshi beyond it that open the channel. Less than, or as much as,
   * was signed before is not signed again. isBuying: the order is a purchase that is outstanding from now on; else an
   * outstanding one stays so. */
  async sign(
    number: number,
    target: number,
    order: Order,
    isBuying: boolean,
    floor: number,
    openPrice: number,
  ): Promise<ChannelRecord> {
    let isAllowed = false;
    for (;;) {
      const outcome = await this.store.exclusively("budget", () =>
        this.trySign(number, target, order, isBuying, target - floor - openPrice, openPrice, isAllowed),
      );
      if (!("over" in outcome)) return outcome;
      await this.ask(outcome);
      isAllowed = true;
    }
  }

  private async trySign(
    number: number,
    target: number,
    order: Order,
    isBuying: boolean,
    request: number,
    opening: number,
    isAllowed: boolean,
  ): Promise<ChannelRecord | Purchase> {
    const record = await this.channel(number);
    const terms = recordTerms(record);
    checkSatoshi(target, "the payment");
    if (record.hold !== "" || record.isStale || (record.phase !== "open" && record.phase !== "funded")) {
      throw new PaychanError("misbehaved", `nothing is signed on channel ${number}: ${record.hold || record.phase}`);
    }
    const purchase = isBuying ? { key: order.key, request: order.request } : record.purchase;
    const value = target - signedValue(record);
    if (value <= 0) return record.purchase?.key === purchase?.key ? record : this.save({ ...record, purchase });
    const isUsedUp = target > terms.fundingValue - DUST_LIMIT;
    if (isUsedUp || isTooLate(record, this.now())) {
      throw new PaychanError("used_up", `channel ${number} pays ${isUsedUp ? "no such sum" : "nothing"} any more`);
    }
    const { method, url } = order;
    const { host } = new URL(url);
    const step = { value, openPrice: opening, request };
    const over = isAllowed ? [] : exceeded(this.settings.budgets, await this.channels(), this.now(), host, step);
    if (over.length > 0) return { url, host, value, openPrice: opening, over };
    const payment = signPayment(terms, terms.fundingValue - target, this.secret(record));
    const signings = addSigning(record.signings, this.now(), host, value);
    return this.save({ ...record, signed: encodePayment(payment), purchase, method, url, signings });
  }

  private secret(record: ChannelRecord): Uint8Array {
    return this.wallet.key(recordNetwork(record), record.number).secret;
  }

  /** Return the payment that is worth nothing: it proves the key, and may be signed at any time. */
  worthless(record: ChannelRecord): string {
    const terms = recordTerms(record);
    return encodePayment(signPayment(terms, terms.fundingValue, this.secret(record)));
  }

  /** Book a receipt. One that claims what was not signed puts the channel on hold, and is not believed. isOver: it answers the
   * purchase. isDoubted: that was paid twice, as `doubt` says. */
  async book(number: number, receipt: Receipt, isOver: boolean, isDoubted = false): Promise<ChannelRecord> {
    const record = await this.channel(number);
    if (receipt.channelId !== recordName(record)) return record;
    const isSigned = receipt.accepted === signedValue(record);
    const accepted = isSigned ? record.signed : record.accepted;
    if (receipt.deposit !== record.funding?.value || (!isSigned && receipt.accepted > signedValue(record))) {
      return this.save({ ...record, hold: "the receipt claims more than was signed" });
    }
    const phase = receipt.settlement ? "over" : "open";
    const spent = Math.min(receipt.spent, cumulative(record, accepted));
    const settlement = receipt.settlement ?? record.settlement;
    return this.save({
      ...record,
      accepted,
      spent,
      phase,
      settlement,
      purchase: isOver ? null : record.purchase,
      doubts: isDoubted ? record.doubts : 0,
    });
  }

  /** Book what a problem document says of the channel; figures that contradict what was signed say nothing. isOver: as for
   * `book`. */
  async learn(number: number, accepted: number | null, spent: number | null, isOver: boolean): Promise<ChannelRecord> {
    const found = await this.channel(number);
    const record = isOver && found.purchase ? await this.save({ ...found, purchase: null }) : found;
    if (accepted === null || accepted > signedValue(record)) return record;
    const newest = accepted === signedValue(record) ? record.signed : record.accepted;
    const known = spent === null ? record.spent : Math.min(spent, cumulative(record, newest));
    const phase = newest !== null && record.phase === "funded" ? "open" : record.phase;
    if (newest === record.accepted && known === record.spent && phase === record.phase) return record;
    return this.save({ ...record, accepted: newest, spent: known, phase });
  }

  /** Adopt a snapshot, whose payment must be our own signature on this channel. If it is not, nothing more is signed on it. */
  async adopt(number: number, snapshot: Snapshot): Promise<ChannelRecord> {
    const record = await this.channel(number);
    const terms = recordTerms(record);
    if (snapshot.channelId !== recordName(record)) return this.hold(number, "the snapshot is of another channel");
    if (snapshot.deposit !== terms.fundingValue || !verifyPayment(terms, snapshot.payment)) {
      return this.hold(number, "the snapshot has a payment that was not signed here");
    }
    const shown = encodePayment(snapshot.payment);
    const signed = snapshot.accepted >= signedValue(record) ? shown : record.signed;
    return this.save({ ...record, signed, accepted: shown, spent: snapshot.spent, phase: "open", isStale: false });
  }

  /** Note that the server says of a new payment that it had been used before, which can be true; but not time after time. */
  async doubt(number: number): Promise<ChannelRecord> {
    const record = await this.channel(number);
    const doubts = record.doubts + 1;
    const hold = doubts > DOUBTS_MAX ? "the server says of each payment that it had been used before" : record.hold;
    return this.save({ ...record, doubts, hold });
  }

  async hold(number: number, reason: string): Promise<ChannelRecord> {
    return this.save({ ...(await this.channel(number)), hold: reason });
  }

  /** Note that a channel takes no payments any more. Its refund stays possible. */
  async end(number: number): Promise<ChannelRecord> {
    return this.save({ ...(await this.channel(number)), phase: "over" });
  }

  /** A backup that was not opened elsewhere is as good as it was. */
  async trust(number: number): Promise<ChannelRecord> {
    return this.save({ ...(await this.channel(number)), isStale: false });
  }

  /** Return the signed refund of a channel: it takes everything back after the expiry, if nothing was settled. feeRate:
   * satoshi a byte. */
  async refund(number: number, feeRate: number): Promise<Refund> {
    const record = await this.channel(number);
    return makeRefund(recordTerms(record), this.secret(record), feeRate);
  }

  /** Return words and channels in one text, to be kept where only the payer gets at it. It stays good: what is signed later
   * is found again. */
  async backup(): Promise<string> {
    return JSON.stringify({ version: 1, words: this.words, channels: await this.channels() }, null, 1);
  }

  /** Return what was signed away within the last hour and day, in satoshi. */
  async spending(): Promise<{ hour: number; day: number; hosts: Record<string, number> }> {
    const records = await this.channels();
    const hosts = new Set(records.flatMap((record) => record.signings.map((signing) => signing.host)));
    const now = this.now();
    return {
      hour: signedSince(records, now - HOUR),
      day: signedSince(records, now - DAY),
      hosts: Object.fromEntries([...hosts].map((host) => [host, signedSince(records, now - DAY, host)])),
    };
  }
}

/** Write a backup into a storage that has no wallet yet. Its channels ask their servers for the newest payment before they pay. */
export async function restoreBackup(store: Store, text: string): Promise<void> {
  const content = parseObject(text);
  const channels = content?.["channels"];
  if (content?.["version"] !== 1 || !Array.isArray(channels)) throw new PaychanError("invalid_record", "this is no backup");
  const wallet = Wallet.restore(String(content["words"]));
  if ((await store.read(WALLET)) !== null) throw new PaychanError("invalid_key", "this storage has a wallet already");
  const records = channels.map((one) =>
    parseRecord(JSON.stringify(one), (record) => wallet.key(recordNetwork(record), record.number).pubkey),
  );
  for (const record of records) {
    await store.write(
      `channel-${record.number}`,
      JSON.stringify({ ...record, isStale: record.funding !== null && record.phase !== "over" }),
    );
  }
  await store.write(WALLET, JSON.stringify({ version: 1, words: wallet.words }));
}
