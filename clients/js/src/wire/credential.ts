/** `Authorization: Payment`: the credential, an echo of the challenge and what pays it. It is as good as money: it belongs
 * into no log. */

import { encodeJson, toHex } from "../core/bytes.js";
import type { ChannelTerms } from "../core/payment.js";
import { formatOutpoint } from "../core/script.js";
import type { Challenge } from "./challenge.js";

export type Payload =
  | { readonly action: "voucher" | "close"; readonly channelId: string; readonly payment: string }
  | {
      readonly action: "open";
      readonly channelId: string;
      readonly payment: string;
      readonly clientPubkey: string;
      readonly expTime: number;
      readonly changeAddress: string;
    };

/** Return the payload that pays with, or closes, an open channel. payment: its text. */
export function voucherPayload(terms: ChannelTerms, payment: string, action: "voucher" | "close" = "voucher"): Payload {
  return { action, channelId: formatOutpoint(terms.outpoint), payment };
}

/** Return the payload that opens a channel with its first payment. */
export function openPayload(terms: ChannelTerms, changeAddress: string, payment: string): Payload {
  return {
    action: "open",
    channelId: formatOutpoint(terms.outpoint),
    payment,
    clientPubkey: toHex(terms.clientPubkey),
    expTime: terms.expTime,
    changeAddress,
  };
}

/** The header that the credential goes into: the challenge may ask for one that leaves `Authorization` free. */
export const credentialHeader = (challenge: Challenge): string =>
  challenge.header === "Payment-Authorization" ? challenge.header : "Authorization";

/** Return the header's value. */
export const renderCredential = (challenge: Challenge, payload: Payload): string =>
  `Payment ${encodeJson({ challenge, payload })}`;
