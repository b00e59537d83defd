/** Aim: scripts, addresses, payments and refunds are byte for byte those of protocol v1. Method: the repository's vectors. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { secp256k1 } from "@noble/curves/secp256k1.js";
import { Transaction } from "@scure/btc-signer";

import { debugFunding } from "../dist/core/debug.js";
import { isExpiry } from "../dist/core/money.js";
import { decodeAddress, findNetwork, NETWORKS } from "../dist/core/network.js";
import {
  decodePayment,
  encodePayment,
  paymentSighash,
  serializePayment,
  signPayment,
  verifyPayment,
} from "../dist/core/payment.js";
import { fundingAddress, parseOutpoint, redeemScript } from "../dist/core/script.js";
import { checkSettlement, findFunding, makeRefund, parseTransaction, signRefund } from "../dist/core/transaction.js";
import { keyAddress, Wallet } from "../dist/core/wallet.js";
import { bytes, hex, readVectors, termsOf } from "./vectors.js";

const TEST = findNetwork("test");
const secretOf = (text) => createHash("sha256").update(text).digest();
const code = (expected) => (error) => error.code === expected;

test("redeem scripts, funding addresses and debug funding are the recorded ones", () => {
  for (const row of readVectors("redeem-and-debug-funding.json")) {
    const redeem = redeemScript(bytes(row.server_pubkey), bytes(row.client_pubkey), row.exp_time);
    assert.equal(hex(redeem), row.redeem_script);
    assert.equal(fundingAddress(TEST, redeem), row.address_test);
    assert.equal(fundingAddress(findNetwork("live"), redeem), row.address_live);
    if (row.debug_txid) {
      const { outpoint, value } = debugFunding(bytes(row.client_pubkey), row.exp_time);
      assert.deepEqual([outpoint.txid, outpoint.vout, value], [row.debug_txid, row.debug_vout, row.debug_value]);
    }
  }
});

test("the original program's 300 payments verify, and each only with its own change value", () => {
  const { channel, payments } = readVectors("original-48aa769-300.json");
  const terms = termsOf(channel);
  assert.equal(payments.length, 300);
  for (const row of payments) {
    const payment = decodePayment(row.payment);
    assert.equal(payment.changeValue, row.change_value);
    assert.equal(hex(paymentSighash(terms, payment.changeValue, payment.sighashType)), row.sighash);
    assert.ok(verifyPayment(terms, payment));
    assert.ok(!verifyPayment(terms, { ...payment, changeValue: payment.changeValue - 1 }));
    assert.equal(encodePayment(payment), row.payment.replace(/=+$/, ""));
  }
});

test("the edge cases verify, and are parsed and written back", () => {
  for (const row of readVectors("positive-own.json")) {
    const payment = decodePayment(row.payment);
    assert.equal(hex(serializePayment(payment)), row.payment_raw);
    assert.equal(hex(payment.signature), row.der_sig);
    assert.equal(hex(paymentSighash(termsOf(row), payment.changeValue, payment.sighashType)), row.sighash);
    assert.ok(verifyPayment(termsOf(row), payment), row.note);
  }
});

test("what is signed here is what the other implementation signs: RFC 6979, low S, DER", () => {
  let compared = 0;
  for (const channel of readVectors("reference-channels.json").filter((one) => isExpiry(one.exp_time))) {
    const secret = bytes(channel.client_privkey);
    const golden = channel.payment_urls.map((url) => new URL(url));
    const serverPubkey = bytes("0225b3aaf58992a8cc909522c2ec859ef218fd29fda0a6723cfb4e0529f80cc8f3");
    const clientPubkey = bytes(channel.client_pubkey);
    const { outpoint, value } = debugFunding(clientPubkey, channel.exp_time);
    const terms = {
      outpoint,
      serverPubkey,
      clientPubkey,
      expTime: channel.exp_time,
      fundingValue: value,
      changeScript: decodeAddress(TEST, "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"),
    };
    for (const url of golden) {
      const theirs = decodePayment(url.searchParams.get("payment"));
      const ours = signPayment(terms, theirs.changeValue, secret);
      assert.equal(encodePayment(ours), encodePayment(theirs));
      compared += 1;
    }
  }
  assert.ok(compared > 20);
});

test("what a strict server refuses is refused: by its form, or because it does not verify", () => {
  const byForm = new Set([
    "high_s",
    "bad_der",
    "bad_sighash_type",
    "value_must_be_zero",
    "dust_change",
    "value_range",
    "parse",
    "trailing_bytes",
    "bad_base64",
    "bad_base64_or_parse",
    "non_canonical_base64",
  ]);
  for (const row of readVectors("negative.json")) {
    const isOfForm = byForm.has(row.reason) || ["DER: r = 0", "DER: s = n"].includes(row.name);
    if (isOfForm) {
      assert.throws(() => decodePayment(row.payment), code("invalid_payment"), row.name);
      continue;
    }
    let isTaken = false;
    try {
      const payment = decodePayment(row.payment);
      isTaken = verifyPayment(termsOf(row), payment) && payment.changeValue <= row.prev_client_value;
    } catch (error) {
      assert.equal(error.code, "invalid_payment");
    }
    assert.ok(!isTaken, row.name);
  }
});

test("a change value that cannot be signed for gives up everything, one that the channel does not hold is refused", () => {
  const row = readVectors("positive-own.json")[0];
  const terms = { ...termsOf(row), clientPubkey: secp256k1.getPublicKey(secretOf("payer")) };
  for (const left of [0, 1, 699]) {
    const payment = signPayment(terms, left, secretOf("payer"));
    assert.deepEqual([payment.changeValue, payment.sighashType], [0, 0x82]);
    assert.ok(verifyPayment(terms, payment));
  }
  assert.equal(signPayment(terms, 700, secretOf("payer")).changeValue, 700);
  for (const left of [-1, 0.5, NaN, terms.fundingValue + 1, "700", undefined]) {
    assert.throws(() => signPayment(terms, left, secretOf("payer")), code("invalid_amount"));
  }
});

test("the refund is the recorded one, and another library reads it so", () => {
  const [row] = readVectors("settlement-and-refund.json").filter((one) => one.kind === "refund");
  const raw = signRefund(termsOf(row), row.fee, bytes(row.client_key));
  assert.equal(hex(raw), row.raw_tx);
  const read = Transaction.fromRaw(raw, { allowUnknownInputs: true, disableScriptCheck: true, allowLegacyWitnessUtxo: true });
  assert.deepEqual(
    [read.id, read.lockTime, read.getOutput(0).amount],
    [row.txid, row.exp_time, BigInt(row.funding_value - row.fee)],
  );
  assert.equal(parseTransaction(row.raw_tx).txid, row.txid);
  const refund = makeRefund(termsOf(row), bytes(row.client_key), 2);
  assert.equal(refund.value, row.funding_value - refund.fee);
  assert.ok(refund.fee >= refund.raw.length && refund.fee <= refund.raw.length + 8);
  assert.throws(() => makeRefund({ ...termsOf(row), fundingValue: 800 }, bytes(row.client_key), 1), code("invalid_amount"));
  for (const rate of [NaN, -1, Infinity])
    assert.throws(() => makeRefund(termsOf(row), bytes(row.client_key), rate), code("invalid_amount"));
});

test("a settlement is judged by the change that it pays", () => {
  for (const row of readVectors("settlement-and-refund.json").filter((one) => one.kind !== "refund")) {
    const terms = termsOf(row);
    const { outputs } = parseTransaction(row.raw_tx);
    const change = outputs
      .filter((output) => hex(output.script) === row.change_script)
      .reduce((sum, output) => sum + output.value, 0);
    assert.equal(checkSettlement(terms, change, row.raw_tx), change);
    assert.throws(() => checkSettlement(terms, change + 1, row.raw_tx), code("misbehaved"));
    assert.throws(
      () => checkSettlement({ ...terms, outpoint: { ...terms.outpoint, vout: 7 } }, 0, row.raw_tx),
      code("misbehaved"),
    );
  }
});

test("a funding output is found by its script, and its value is proven by the txid; witnesses do not count", () => {
  const row = readVectors("positive-own.json")[0];
  const redeem = bytes(row.redeem_script);
  const address = fundingAddress(TEST, redeem);
  const script = decodeAddress(TEST, address);
  const old =
    "01000000" +
    "01" +
    "11".repeat(32) +
    "00000000" +
    "00" +
    "ffffffff" +
    "02" +
    "e803000000000000" +
    "160014" +
    "22".repeat(20) +
    "40420f0000000000" +
    "17" +
    hex(script) +
    "00000000";
  const segwit = old.slice(0, 8) + "0001" + old.slice(8, -8) + "0102aabb" + "00000000";
  const funding = findFunding(redeem, old);
  assert.deepEqual([funding.outpoint.vout, funding.value], [1, 1_000_000]);
  assert.deepEqual(findFunding(redeem, segwit), funding);
  const judge = Transaction.fromRaw(bytes(old), { allowUnknownOutputs: true });
  assert.equal(funding.outpoint.txid, judge.id);
  for (const bad of ["", "zz", old.slice(0, -2), old + "00", old.replace(hex(script), "00".repeat(23)), "ff".repeat(60)]) {
    assert.throws(() => findFunding(redeem, bad), code("invalid_transaction"));
  }
});

test("addresses mean the scripts of BIP 173 and BIP 350; of other networks and versions none", () => {
  const { valid, invalid } = readVectors("segwit-addresses.json");
  const known = (script) => /^(0014.{40}|0020.{64}|5120.{64})$/.test(script);
  for (const [address, script] of valid) {
    const network = findNetwork(address.toLowerCase().startsWith("bc") ? "live" : "test");
    if (known(script)) assert.equal(hex(decodeAddress(network, address)), script);
    else assert.throws(() => decodeAddress(network, address), code("invalid_address"));
    for (const other of ["regtest", network.name === "live" ? "test" : "live"]) {
      assert.throws(() => decodeAddress(findNetwork(other), address), code("invalid_address"));
    }
  }
  for (const address of [...invalid, "", "mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC6", " mmA2XECa7bVERzQKkyy1pNBQ3PC4HnxTC5"]) {
    for (const network of NETWORKS) assert.throws(() => decodeAddress(network, address), code("invalid_address"), address);
  }
});

test("an outpoint has one spelling", () => {
  const txid = "ab".repeat(32);
  assert.deepEqual(parseOutpoint(`${txid}:4294967295`), { txid, vout: 4294967295 });
  for (const text of [
    `${txid}/1`,
    `${txid}:01`,
    `${txid}:4294967296`,
    `${txid.toUpperCase()}:1`,
    `${txid}:`,
    `${txid}:1 `,
    null,
    7,
  ]) {
    assert.equal(parseOutpoint(text), null);
  }
});

test("a wallet is restored from its words, and wrong words are told", () => {
  const wallet = Wallet.create();
  assert.equal(wallet.words.split(" ").length, 12);
  const again = Wallet.restore(`  ${wallet.words.toUpperCase().replaceAll(" ", "\n ")} `);
  const network = findNetwork("regtest");
  for (const index of [0, 1, 77]) assert.deepEqual(again.key(network, index), wallet.key(network, index));
  const known = Wallet.restore("abandon ".repeat(11) + "about");
  const addresses = [0, 1].map((index) => keyAddress(TEST, known.key(TEST, index).pubkey));
  assert.notEqual(addresses[0], addresses[1]);
  assert.notEqual(keyAddress(TEST, known.key(findNetwork("live"), 0).pubkey), addresses[0]);
  const words = wallet.words.split(" ");
  for (const bad of [
    "",
    words.slice(1).join(" "),
    [...words, words[0]].join(" "),
    words.with?.(0, "satoshis") ?? "x",
    "abandon ".repeat(12),
  ]) {
    assert.throws(() => Wallet.restore(String(bad)), code("invalid_key"));
  }
});
