/** A shop that can lie, lose answers and forget, which no real one does on purpose. What the real one does, test/live tries. */

import { createServer } from "node:http";

import { secp256k1 } from "@noble/curves/secp256k1.js";

import { decodeJson, encodeJson } from "../dist/core/bytes.js";
import { decodePayment, verifyPayment } from "../dist/core/payment.js";
import { parseOutpoint } from "../dist/core/script.js";
import { debugFunding, DEBUG_FUNDING_VALUE } from "../dist/core/debug.js";
import { decodeAddress, findNetwork } from "../dist/core/network.js";
import { bytes, hex } from "./vectors.js";

export const OPEN_PRICE = 1_000;
const PROBLEMS = "https://paymentauth.org/problems/";

export class Shop {
  constructor() {
    this.secret = new Uint8Array(32).fill(9);
    this.pubkey = secp256k1.getPublicKey(this.secret);
    this.price = 5;
    this.fundingValue = DEBUG_FUNDING_VALUE;
    this.details = {};
    this.request = {};
    this.channels = new Map();
    /** What came, newest last: {method, path, payload, key, signature of the payment}. */
    this.seen = [];
    /** Called before the honest answer; what it returns is the answer: {status, headers, body}, "drop" for none, null for the
     * honest one. */
    this.script = async () => null;
    this.units = 1;
  }

  static async open() {
    const shop = new Shop();
    shop.server = createServer((request, response) => shop.answer(request, response));
    await new Promise((resolve) => shop.server.listen(0, "127.0.0.1", resolve));
    shop.url = `http://127.0.0.1:${shop.server.address().port}`;
    return shop;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  challenge() {
    const request = encodeJson({
      amount: String(this.price),
      currency: "sat",
      recipient: hex(this.pubkey),
      suggestedDeposit: "100000",
      methodDetails: {
        chain: "bip122:000000000933ea01ad0ee984209779ba",
        channelType: "p2sh-cltv-1",
        fundingConfirmations: 0,
        settlementPeriod: 21600,
        minDuration: 3600,
        maxDuration: 1e7,
        dustLimit: "700",
        openPrice: String(OPEN_PRICE),
        ...this.details,
      },
      ...this.request,
    });
    return `Payment id="x${this.price}", realm="shop", method="bitcoin", intent="session", request="${request}"`;
  }

  async answer(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const credential = /^Payment (.+)$/.exec(request.headers.authorization ?? "");
    const payload = credential ? decodeJson(credential[1]).payload : null;
    const row = {
      method: request.method,
      path: request.url,
      payload,
      key: request.headers["idempotency-key"],
      body: Buffer.concat(chunks),
    };
    this.seen.push(row);
    const answer = (await this.script(row)) ?? this.judge(row);
    if (answer === "drop") return request.socket.destroy();
    const { status, headers = {}, body = "" } = answer;
    response.writeHead(status, status === 402 ? { "WWW-Authenticate": this.challenge(), ...headers } : headers);
    response.end(body);
  }

  refuse(name, members = {}, headers = {}, code = name) {
    const body = JSON.stringify({ type: PROBLEMS + name, code, ...members });
    return { status: 402, headers: { "Content-Type": "application/problem+json", ...headers }, body };
  }

  channelOf(payload) {
    if (payload.action === "open" && !this.channels.has(payload.channelId)) {
      const { outpoint } = debugFunding(bytes(payload.clientPubkey), payload.expTime);
      if (payload.channelId !== `${outpoint.txid}:${outpoint.vout}`) throw new Error("the payer names another output");
      const terms = {
        outpoint: parseOutpoint(payload.channelId),
        serverPubkey: this.pubkey,
        clientPubkey: bytes(payload.clientPubkey),
        expTime: payload.expTime,
        fundingValue: this.fundingValue,
        changeScript: decodeAddress(findNetwork("test"), payload.changeAddress),
      };
      this.channels.set(payload.channelId, { terms, accepted: 0, spent: OPEN_PRICE, newest: null, bought: "" });
    }
    return this.channels.get(payload.channelId);
  }

  /** What an honest shop does. */
  judge(row) {
    if (row.payload === null) return this.refuse("payment-required");
    const channel = this.channelOf(row.payload);
    if (!channel) return this.refuse("session/channel-not-found");
    if (channel.isClosed) return this.refuse("session/channel-finalized");
    const payment = decodePayment(row.payload.payment);
    if (!verifyPayment(channel.terms, payment)) return this.refuse("session/invalid-signature");
    const value = channel.terms.fundingValue - payment.changeValue;
    const cost = row.method === "HEAD" ? 0 : this.price * this.units;
    if (value < channel.accepted)
      return this.refuse(
        "verification-failed",
        {},
        { "Payment-Session-Snapshot": this.snapshot(row.payload.channelId) },
        "out_of_order",
      );
    if (row.payload.action === "close") return this.settle(row.payload, channel);
    const isAgain = value === channel.accepted && channel.bought === `${row.key}`;
    const facts = {
      acceptedCumulative: String(channel.accepted),
      spent: String(channel.spent),
      requiredCumulative: String(channel.spent + cost),
    };
    if (!isAgain && value < channel.spent + cost) return this.refuse("session/insufficient-balance", facts);
    if (!isAgain)
      [channel.accepted, channel.spent, channel.newest, channel.bought] = [
        value,
        channel.spent + cost,
        row.payload.payment,
        row.key,
      ];
    return {
      status: cost ? 200 : 204,
      headers: { "Payment-Receipt": this.receipt(row.payload.channelId) },
      body: cost ? "goods" : "",
    };
  }

  settle({ channelId, payment }, channel) {
    if (payment !== channel.newest) return this.refuse("verification-failed", {}, {}, "not_newest_payment");
    channel.isClosed = true;
    const receipt = this.receipt(channelId, { final: true, settlementRef: "ab".repeat(32) });
    return { status: 204, headers: { "Payment-Receipt": receipt } };
  }

  receipt(channelId, changes = {}) {
    const { accepted, spent, terms } = this.channels.get(channelId);
    return encodeJson({
      status: "success",
      method: "bitcoin",
      intent: "session",
      channelId,
      acceptedCumulative: String(accepted),
      spent: String(spent),
      deposit: String(terms.fundingValue),
      units: 1,
      ...changes,
    });
  }

  snapshot(channelId, changes = {}) {
    const { accepted, spent, newest, terms } = this.channels.get(channelId);
    return encodeJson({
      channelId,
      channelType: "p2sh-cltv-1",
      acceptedCumulative: String(accepted),
      spent: String(spent),
      deposit: String(terms.fundingValue),
      payment: newest,
      ...changes,
    });
  }
}
