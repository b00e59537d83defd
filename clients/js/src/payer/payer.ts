/** What a user of this package has in hands: `fetch` that pays, paid streams, channels, backup and refund. */

import type { Refund } from "../core/transaction.js";
import type { Store } from "../store/store.js";
import { paidEvents, type PaidEvent, type StreamSettings } from "./events.js";
import { needOf, type FundingAnswer, type FundingNeed } from "./funding.js";
import { HttpPayer, type HttpSettings } from "./http.js";
import { Purse, restoreBackup, type PurseSettings } from "./purse.js";
import {
  acceptedValue,
  credit,
  isPending,
  paymentsEnd,
  recordName,
  recordNetwork,
  signedValue,
  type ChannelRecord,
  type Phase,
} from "./record.js";

/** A channel as people look at it. Satoshi and unix seconds. */
export interface ChannelView {
  readonly number: number;
  readonly origin: string;
  readonly network: string;
  /** `txid:vout` of the funding output; empty before it is funded. */
  readonly name: string;
  readonly phase: Phase;
  readonly deposit: number;
  /** Signed away in all; of these, known to be accepted, and not used yet. */
  readonly signed: number;
  readonly accepted: number;
  readonly credit: number;
  /** What would come back now. */
  readonly change: number;
  readonly isPending: boolean;
  readonly paymentsEnd: number;
  readonly refundableFrom: number;
  readonly hold: string;
  readonly settlement: string | null;
  readonly need: FundingNeed;
}

export class Payer {
  private constructor(
    readonly purse: Purse,
    readonly http: HttpPayer,
  ) {}

  /** Open the payer in a storage; with new words if the storage is empty. See PurseSettings, HttpSettings. */
  static async open(settings: PurseSettings & HttpSettings): Promise<Payer> {
    const purse = await Purse.open(settings);
    return new Payer(purse, new HttpPayer(purse, settings));
  }

  /** Write a backup into an empty storage; then `open` it. */
  static restore(store: Store, backup: string): Promise<void> {
    return restoreBackup(store, backup);
  }

  /** As the platform's fetch, but pays for what is answered 402. See HttpPayer.fetch. */
  readonly fetch = (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => this.http.fetch(input, init);

  /** Yield the events of a paid stream. See paidEvents. */
  events(
    input: RequestInfo | URL,
    settings: StreamSettings = {},
    init?: RequestInit,
  ): AsyncGenerator<PaidEvent, void, undefined> {
    return paidEvents(this.http, input, init, settings);
  }

  /** The backup of all keys: twelve words. */
  get words(): string {
    return this.purse.words;
  }

  /** Return words and channels in one text. It is as good as the money: whoever has it has that. */
  backup(): Promise<string> {
    return this.purse.backup();
  }

  /** Note that channel `number` was paid for. Throws invalid_transaction. */
  async funded(number: number, answer: FundingAnswer): Promise<ChannelView> {
    return viewOf(await this.purse.funded(number, answer));
  }

  async channels(): Promise<ChannelView[]> {
    return (await this.purse.channels()).map(viewOf);
  }

  /** Have a channel settled; returns the settlement's txid. */
  close(number: number): Promise<string> {
    return this.http.close(number);
  }

  /** Return the signed transaction that takes a channel's money back after its expiry, if nothing was settled. feeRate:
   * satoshi a byte. */
  refund(number: number, feeRate: number): Promise<Refund> {
    return this.purse.refund(number, feeRate);
  }

  /** Return what was signed away within the last hour and day, in all and with each host, in satoshi. */
  spending(): Promise<{ hour: number; day: number; hosts: Record<string, number> }> {
    return this.purse.spending();
  }
}

function viewOf(record: ChannelRecord): ChannelView {
  const deposit = record.funding?.value ?? 0;
  return {
    number: record.number,
    origin: record.origin,
    network: recordNetwork(record).name,
    name: recordName(record),
    phase: record.phase,
    deposit,
    signed: signedValue(record),
    accepted: acceptedValue(record),
    credit: credit(record),
    change: deposit - signedValue(record),
    isPending: isPending(record),
    paymentsEnd: paymentsEnd(record),
    refundableFrom: record.expTime,
    hold: record.hold,
    settlement: record.settlement,
    need: needOf(record),
  };
}
