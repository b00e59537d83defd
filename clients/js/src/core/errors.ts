/** What can go wrong, for programs: `code` is stable, the message is for people. */

export type Code =
  | "invalid_amount" // not a whole number of satoshi in the range that is meant
  | "invalid_key" // no key, or words that are no backup
  | "invalid_address" // no address of the channel's network
  | "invalid_payment" // bytes or text that are no payment of protocol v1
  | "invalid_transaction" // bytes that are no transaction, or do not do what they should
  | "invalid_challenge" // a server's offer that makes no sense, or that we do not know how to pay
  | "invalid_record" // a stored channel that contradicts itself
  | "state" // the storage failed: nothing was sent
  | "busy" // another process uses the storage
  | "needs_funding" // there is no channel with room; `address` and `value` of the error say what to fund
  | "funding_pending" // the funding is not confirmed enough yet: try again later
  | "used_up" // what is left in the channel, or of its time, does not pay for this; another channel will
  | "over_budget" // more than the budgets allow: nothing was signed
  | "refused" // the server refused the payment; `problem` is its answer
  | "misbehaved" // the server claims what the payer did not sign, or charged what was not agreed; the channel is on hold
  | "outcome_unknown" // no answer, or 503: the payment may count. The same request again is safe
  | "body_too_large" // a paid request's body is kept for sending it again, up to 64 MiB
  | "invalid_receipt"; // a signed receipt that is forged, or breaks the chain

export class PaychanError extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "PaychanError";
    this.code = code;
  }
}

/** A channel is needed: `value` satoshi are to be paid to `address` (`uri` says both, BIP 21). channel: its number. */
export class NeedsFunding extends PaychanError {
  constructor(
    readonly channel: number,
    readonly address: string,
    readonly value: number,
    readonly uri: string,
    /** All that is known of it. */
    readonly need: object,
  ) {
    super("needs_funding", `pay ${value} satoshi to ${address} to open a channel`);
    this.name = "NeedsFunding";
  }
}

/** The server's refusal. `problem`: its RFC 9457 document; `status`: its HTTP status. */
export class Refused extends PaychanError {
  readonly status: number;
  readonly problem: Readonly<Record<string, unknown>>;

  constructor(status: number, problem: Readonly<Record<string, unknown>>) {
    const what = String(problem["detail"] ?? problem["title"] ?? problem["code"] ?? problem["type"] ?? "no reason given");
    super("refused", `the server refused the payment (${status}): ${what}`);
    this.name = "Refused";
    this.status = status;
    this.problem = problem;
  }
}
