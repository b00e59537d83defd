/** Scheme `batch-settlement` on `bip122:…` for x402, both sides (docs/X402.md).
 *
 *     const x402 = channels(payer);                                              // to buy
 *     const client = x402Client.fromConfig({
 *       schemes: [{ network: "bip122:*", client: x402.scheme }], spendControls: SPEND_CONTROLS,
 *     });
 *     const fetchWithPayment = wrapFetchWithPayment(x402.fetch, client);
 *
 *     const server = new x402ResourceServer(facilitator).register("bip122:*", new ChannelScheme());   // to sell
 */

import type { Network, SchemeNetworkClient, SchemeNetworkServer, SchemeServerHooks } from "@x402/core/types";

import { decodeJson, encodeJson } from "../core/bytes.js";
import { PaychanError } from "../core/errors.js";
import { parseSatoshi } from "../core/money.js";
import type { Payer } from "../payer/payer.js";
import { resumed, type Order } from "../payer/record.js";
import { Session } from "../payer/session.js";
import { readSnapshot, type Receipt } from "../wire/answer.js";
import { CHANNEL_TYPE, CURRENCY, INTENT, METHOD, type Challenge } from "../wire/challenge.js";

export const SCHEME = "batch-settlement";
export const VERSION = 2;

/** What an x402 client must be told, or its default spend controls refuse satoshi. The payer's own budgets are the limit. */
export const SPEND_CONTROLS: { allowedAssets: { network: Network; asset: string }[] } = {
  allowedAssets: [{ network: "bip122:*", asset: CURRENCY }],
};

type Members = Record<string, unknown>;

/** x402's PaymentRequirements. */
interface Requirements {
  scheme: string;
  network: Network;
  asset: string;
  amount: string;
  payTo: string;
  maxTimeoutSeconds: number;
  extra: Members;
}

interface Outcome {
  paymentPayload: { payload: Members };
  settleResponse?: { success: boolean; errorReason?: string; extra?: Members };
}

// --- the payer's side ---

/** Return x402's client scheme, and the fetch that belongs to it. base: what sends requests; without it, the platform's fetch. */
export function channels(payer: Payer, base: typeof fetch = globalThis.fetch) {
  const places = new Map<string, Order>();
  const offers = new WeakMap<object, Order>();
  const sessions = new Map<string, Session>();

  /** An offer counts where it came from, and nowhere else: a payment shown to another server would buy for that one. */
  async function observe(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const request = new Request(input, init);
    const response = await base(request);
    const url = response.url || request.url;
    const offer = response.status === 402 ? decodeStandardJson(response.headers.get("PAYMENT-REQUIRED")) : null;
    const named = (offer?.["resource"] as Members | undefined)?.["url"];
    if (typeof named === "string" && offersSatoshi(offer)) {
      if (new URL(named, url).origin !== new URL(url).origin) {
        throw new PaychanError("invalid_challenge", `${url} offers something of ${named}`);
      }
      places.set(named, { method: request.method, url, key: crypto.randomUUID(), request: `${request.method} ${url}` });
    }
    return response;
  }

  const scheme = {
    scheme: SCHEME,
    schemeHooks: {
      async onBeforePaymentCreation(context: {
        paymentRequired: { resource: { url: string } };
        selectedRequirements: object;
      }): Promise<void> {
        const place = places.get(context.paymentRequired.resource.url);
        if (place) offers.set(context.selectedRequirements, place);
      },
      async onPaymentResponse(context: Outcome): Promise<void | { recovered: true }> {
        return book(payer, sessions, context);
      },
    },
    async createPaymentPayload(_version: number, requirements: Requirements): Promise<{ x402Version: number; payload: Members }> {
      const place = offers.get(requirements);
      if (!place) throw new PaychanError("invalid_challenge", "x402 must be given the fetch that comes with this scheme");
      const challenge = challengeOf(requirements);
      const session = await payer.http.inLine(place.url, async () => {
        const record = await payer.http.chooseFor(challenge, place);
        return new Session(payer.purse, record, challenge, resumed(record, { ...place, key: crypto.randomUUID() }));
      });
      const { action, ...members } = await session.payload();
      sessions.set(session.key, session);
      return {
        x402Version: VERSION,
        payload: { type: action === "close" ? "refund" : action, ...members, purchase: session.key },
      };
    },
  } satisfies SchemeNetworkClient;
  return { scheme, fetch: observe as typeof fetch };
}

/** x402's headers are base64 of JSON in the standard alphabet. */
function decodeStandardJson(text: string | null): Members | null {
  return text === null ? null : decodeJson(text.replaceAll("+", "-").replaceAll("/", "_"));
}

function offersSatoshi(offer: Members | null): boolean {
  const accepts = offer?.["accepts"];
  return Array.isArray(accepts) && accepts.some((one: Members) => one?.["scheme"] === SCHEME && one["asset"] === CURRENCY);
}

/** Say in the Payment scheme's words what x402's requirements ask for: there is one reading of them. */
function challengeOf(requirements: Requirements): Challenge {
  const { amount, payTo: recipient, network: chain, asset: currency, extra } = requirements;
  const request = encodeJson({
    amount,
    currency,
    recipient,
    methodDetails: { ...extra, chain, channelType: extra["channelType"] ?? CHANNEL_TYPE },
  });
  return { id: "x402", realm: "x402", method: METHOD, intent: INTENT, request };
}

/** Book what a settlement says; after a correction that verifies, have x402 pay anew. */
async function book(payer: Payer, sessions: Map<string, Session>, context: Outcome): Promise<void | { recovered: true }> {
  const key = String(context.paymentPayload.payload["purchase"]);
  const session = sessions.get(key);
  sessions.delete(key);
  const settled = context.settleResponse;
  if (!session || !settled?.extra) return;
  const state = settled.extra["channelState"] as Members | undefined;
  const voucher = settled.extra["voucherState"] as Members | undefined;
  const channelId = String(state?.["channelId"]);
  const [accepted, spent, deposit] = ["accepted", "spent", "deposit"].map((name) => parseSatoshi(state?.[name]));
  if (accepted == null || spent == null || deposit == null) return;
  if (settled.success) {
    const receipt: Receipt = {
      channelId,
      challengeId: "",
      accepted,
      spent,
      deposit,
      units: 1,
      timestamp: "",
      jws: null,
      settlement: null,
    };
    await payer.purse.book(session.channel, receipt, true);
    payer.http.lookAhead(session);
    return;
  }
  const told = {
    channelId,
    channelType: CHANNEL_TYPE,
    acceptedCumulative: String(accepted),
    spent: String(spent),
    deposit: String(deposit),
  };
  const snapshot = readSnapshot({ ...told, payment: voucher?.["payment"] });
  const isCurable = ["insufficient_credit", "out_of_order", "already_served"].includes(settled.errorReason ?? "");
  if (snapshot === null || !isCurable) return;
  if (settled.errorReason === "already_served") await payer.purse.learn(session.channel, null, null, true);
  const record = await payer.purse.adopt(session.channel, snapshot);
  return record.hold ? undefined : { recovered: true };
}

// --- the seller's side ---

/** x402's SchemeNetworkServer: prices are satoshi, and are taken on disk before the handler runs; a handler that fails gives
 * them back. */
export class ChannelScheme implements SchemeNetworkServer {
  readonly scheme = SCHEME;
  readonly defaultAssetTransferMethod = "default";
  readonly paymentFlows = { default: { supported: ["upfront"], default: "upfront" } } as const;
  readonly schemeHooks: SchemeServerHooks;
  /** By a request's payload: the number of the purchase that it has made. */
  readonly #made = new WeakMap<object, number>();

  constructor() {
    this.schemeHooks = {
      onAfterSettle: async ({ paymentPayload, phase, result }) => {
        const { purchase, repeated } = result.extra ?? {};
        if (phase === "before-handler" && result.success && repeated === false && typeof purchase === "number")
          this.#made.set(paymentPayload, purchase);
      },
    };
  }

  /** Return a price in satoshi: a number, a decimal text, or an amount of asset sat. Throws invalid_amount. */
  async parsePrice(price: unknown): Promise<{ amount: string; asset: string }> {
    const { amount, asset } =
      typeof price === "object" && price !== null ? (price as Members) : { amount: price, asset: CURRENCY };
    const value = parseSatoshi(String(amount));
    if (!value || asset !== CURRENCY) throw new PaychanError("invalid_amount", "a price is a number of satoshi, from 1 on");
    return { amount: String(value), asset: CURRENCY };
  }

  /** Say what a channel must be like and whom it pays, as the channel server says it. */
  async enhancePaymentRequirements(requirements: Requirements, kind: { extra?: Members }): Promise<Requirements> {
    const { payTo, ...told } = kind.extra ?? {};
    if (requirements.payTo !== "" && requirements.payTo !== payTo)
      throw new PaychanError("invalid_key", "payTo must be empty, or the server's key");
    return { ...requirements, payTo: String(payTo), extra: { ...told, ...requirements.extra } };
  }

  /** The handler has failed: what this request was charged for is given back. */
  settleOnCancel({ paymentPayload, requirements }: { paymentPayload: object; requirements: Requirements }): Requirements | void {
    const number = this.#made.get(paymentPayload);
    if (number !== undefined) return { ...requirements, extra: { ...requirements.extra, release: number } };
  }
}
