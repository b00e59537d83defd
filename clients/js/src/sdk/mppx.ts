/** Method `bitcoin`, intent `session`, for mppx: its client pays with this package's purse.
 *
 *     const { method, fetch } = bitcoin(payer);
 *     const mppx = Mppx.create({ methods: [method], fetch, polyfill: false });
 *
 * `fetch` belongs to it: it sees where a challenge came from and what became of a payment, neither of which mppx tells a method.
 */

import { Method, z } from "mppx";

import { PaychanError } from "../core/errors.js";
import type { Payer } from "../payer/payer.js";
import { resumed, type Order } from "../payer/record.js";
import { Session } from "../payer/session.js";
import { findChallenges, readRequest, type Challenge, INTENT, METHOD } from "../wire/challenge.js";
import { renderCredential } from "../wire/credential.js";

const PLACES_MAX = 1000;

export const bitcoinSession = Method.from({
  name: METHOD,
  intent: INTENT,
  schema: {
    request: z.record(z.string(), z.unknown()),
    credential: { payload: z.looseObject({ action: z.string(), channelId: z.string(), payment: z.string() }) },
  },
});

/** Where a challenge came from; and the purchase that it continues, if it answered a payment. */
interface Place {
  readonly challenge: Challenge;
  readonly method: string;
  readonly url: string;
  readonly session: Session | null;
}

export interface BitcoinMethod {
  readonly method: Method.Client<typeof bitcoinSession, undefined>;
  readonly fetch: typeof fetch;
}

/** Return the method and its fetch. base: what sends requests; without it, the platform's fetch. */
export function bitcoin(payer: Payer, base: typeof fetch = globalThis.fetch): BitcoinMethod {
  const places = new Map<string, Place>();
  const sessions = new Map<string, Session>();

  async function observe(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const request = new Request(input, init);
    const shown = request.headers.get("Payment-Authorization") ?? request.headers.get("Authorization") ?? "";
    const session = sessions.get(shown);
    sessions.delete(shown);
    if (session) request.headers.set("Idempotency-Key", session.key);
    const response = await base(request);
    const goesOn = session && response.status !== 503 ? await continues(payer, session, response) : null;
    for (const challenge of response.status === 402 ? findChallenges(response.headers) : []) {
      places.set(challenge.id, { challenge, method: request.method, url: response.url || request.url, session: goesOn });
    }
    while (places.size > PLACES_MAX) places.delete(places.keys().next().value as string);
    return response;
  }

  async function createCredential({ challenge }: { challenge: { id: string } }): Promise<string> {
    const place = places.get(challenge.id);
    if (place === undefined)
      throw new PaychanError("invalid_challenge", "mppx must be given the fetch that comes with this method");
    places.delete(challenge.id);
    return payer.http.inLine(place.url, async () => {
      const session = place.session ?? (await begin(payer, place));
      const header = renderCredential(session.answered, await session.payload());
      sessions.set(header, session);
      return header;
    });
  }

  return { method: Method.toClient(bitcoinSession, { createCredential }), fetch: observe };
}

/** Book an answer; return the session if it goes on with the challenge that came with it. A refusal is for mppx to report. */
async function continues(payer: Payer, session: Session, response: Response): Promise<Session | null> {
  try {
    const verdict = await session.judge(response);
    if (verdict === "done") payer.http.lookAhead(session);
    return verdict === "again" ? session : null;
  } catch (error) {
    if (error instanceof PaychanError && (error.code === "refused" || error.code === "misbehaved")) return null;
    throw error;
  }
}

async function begin(payer: Payer, place: Place): Promise<Session> {
  const terms = readRequest(place.challenge);
  const request = `${terms.amount} ${place.method} ${place.url}`;
  const order: Order = { method: place.method, url: place.url, key: crypto.randomUUID(), request };
  const record = await payer.http.chooseFor(place.challenge, order);
  return new Session(payer.purse, record, place.challenge, resumed(record, order));
}
