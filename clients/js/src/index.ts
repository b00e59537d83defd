/** Pay for HTTP by Bitcoin payment channel. `Payer` is where to begin; the rest is for who builds their own. */

export { Payer, type ChannelView } from "./payer/payer.js";
export { debugFund, type FundingAnswer, type FundingNeed } from "./payer/funding.js";
export { Purse, type PurseSettings } from "./payer/purse.js";
export type { Budgets, BudgetName, Purchase } from "./payer/budget.js";
export { HttpPayer, type HttpSettings } from "./payer/http.js";
export type { PaidEvent, StreamSettings } from "./payer/events.js";
export { Session, type Verdict } from "./payer/session.js";
export { parseRecord, recordTerms, type ChannelRecord, type Order, type Phase } from "./payer/record.js";
export { NeedsFunding, PaychanError, Refused, type Code } from "./core/errors.js";
export { DUST_LIMIT, MAX_MONEY } from "./core/money.js";
export { decodeAddress, findNetwork, NETWORKS, type Network, type NetworkName } from "./core/network.js";
export {
  decodePayment,
  encodePayment,
  parsePayment,
  paymentSighash,
  serializePayment,
  signPayment,
  verifyPayment,
  type ChannelTerms,
  type Payment,
} from "./core/payment.js";
export { formatOutpoint, fundingAddress, parseOutpoint, redeemScript, type Outpoint } from "./core/script.js";
export { checkSettlement, findFunding, makeRefund, parseTransaction, type Funding, type Refund } from "./core/transaction.js";
export { keyAddress, Wallet, type ChannelKey } from "./core/wallet.js";
export { findChallenges, readRequest, type Challenge, type SessionRequest } from "./wire/challenge.js";
export { findReceipt, findSnapshot, readProblem, type Problem, type Receipt, type Snapshot } from "./wire/answer.js";
export { credentialHeader, openPayload, renderCredential, voucherPayload, type Payload } from "./wire/credential.js";
export type { Store } from "./store/store.js";
