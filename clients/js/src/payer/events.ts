/** Server-sent events that are paid while they come (docs/PAYMENT_SCHEME.md, 2.8). */

import { parseObject } from "../core/bytes.js";
import { PaychanError, Refused } from "../core/errors.js";
import { parseSatoshi } from "../core/money.js";
import { readReceipt, type Receipt } from "../wire/answer.js";
import type { HttpPayer } from "./http.js";
import { recordName, signedValue, type ChannelRecord } from "./record.js";

const LINE_CHARACTERS_MAX = 1 << 20;

export interface PaidEvent {
  readonly event: string;
  readonly data: string;
  readonly id: string;
}

export interface StreamSettings {
  /** The most that this stream may cost, in satoshi; without it the budgets alone limit it. */
  readonly limit?: number;
  /** Told what the channel stands at when the stream has been paid for again (null), and at its end (the receipt). */
  readonly onPaid?: (receipt: Receipt | null) => void;
}

/** Yield the events of a resource, paying for more whenever its server asks. Leaving the loop ends the stream, and the paying.
 *
 * Throws as `fetch`, and over_budget when the stream wants more than its limit, refused when it was ended by the server.
 */
export async function* paidEvents(
  payer: HttpPayer,
  input: RequestInfo | URL,
  init: RequestInit | undefined,
  settings: StreamSettings,
): AsyncGenerator<PaidEvent, void, undefined> {
  const leave = new AbortController();
  const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
  headers.set("Accept", "text/event-stream");
  const outer = init?.signal;
  const signal = outer ? AbortSignal.any([outer, leave.signal]) : leave.signal;
  const before = await signedByChannel(payer);
  payer.streams += 1;
  try {
    const response = await payer.fetch(input, { ...init, headers, signal });
    if (!response.ok || response.body === null) throw new Refused(response.status, parseObject(await response.text()) ?? {});
    const url = response.url || new Request(input).url;
    for await (const event of parseEvents(response.body)) {
      if (event.event === "payment-need-voucher") {
        await payMore(payer, url, event.data, before, settings);
        settings.onPaid?.(null);
      } else if (event.event === "payment-receipt") {
        settings.onPaid?.(await bookEnd(payer, event.data));
      } else if (event.event === "payment-error") {
        throw new Refused(402, parseObject(event.data) ?? {});
      } else {
        yield event;
      }
    }
  } finally {
    payer.streams -= 1;
    leave.abort();
  }
}

async function signedByChannel(payer: HttpPayer): Promise<Map<string, number>> {
  return new Map((await payer.purse.channels()).map((record) => [recordName(record), signedValue(record)]));
}

/** Sign what the stream asks for, but no more than its server's own prepayment limit at once, nor than the stream's limit in
 * all. */
async function payMore(
  payer: HttpPayer,
  url: string,
  data: string,
  before: Map<string, number>,
  settings: StreamSettings,
): Promise<void> {
  const content = parseObject(data);
  const name = content?.["channelId"];
  const required = parseSatoshi(content?.["requiredCumulative"]);
  if (typeof name !== "string" || required === null) throw new PaychanError("misbehaved", "the stream's demand makes no sense");
  const start = before.get(name) ?? 0;
  await payer.voucher(
    url,
    (record) => recordName(record) === name,
    (record, terms) => {
      const opening = start === 0 ? terms.openPrice : 0;
      if (settings.limit !== undefined && required - start - opening > settings.limit) {
        throw new PaychanError("over_budget", `the stream has cost its limit of ${settings.limit} satoshi`);
      }
      if (required - signedValue(record) > terms.maxPrepay + terms.amount) {
        throw new PaychanError("misbehaved", "the stream asks for more at once than its challenge allows");
      }
      return required;
    },
  );
}

async function bookEnd(payer: HttpPayer, data: string): Promise<Receipt | null> {
  const receipt = readReceipt(parseObject(data));
  const record = receipt && (await payer.purse.channels()).find((one: ChannelRecord) => recordName(one) === receipt.channelId);
  if (receipt && record) await payer.purse.book(record.number, receipt, false);
  return receipt;
}

/** Yield the events in a body, as the HTML standard has them. */
export async function* parseEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<PaidEvent, void, undefined> {
  let [event, data, id] = ["", [] as string[], ""];
  for await (const line of lines(body)) {
    if (line === "") {
      if (data.length > 0) yield { event: event || "message", data: data.join("\n"), id };
      [event, data] = ["", []];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
    else if (field === "id" && !value.includes("\0")) id = value;
  }
}

async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      // A carriage return at the very end may be the first half of a line's end.
      for (let end = /\r\n|\n|\r(?!$)/.exec(rest); end; end = /\r\n|\n|\r(?!$)/.exec(rest)) {
        yield rest.slice(0, end.index);
        rest = rest.slice(end.index + end[0].length);
      }
      if (rest.length > LINE_CHARACTERS_MAX) throw new PaychanError("misbehaved", "the stream has a line without an end");
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
