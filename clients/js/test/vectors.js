/** The vectors of the repository, which the Python side passes too; nothing is copied. */

import { readFileSync } from "node:fs";

import { decodeAddress, findNetwork } from "../dist/core/network.js";

const DIRECTORY = new URL("../../../tests/vectors/", import.meta.url);

export const readVectors = (name) => JSON.parse(readFileSync(new URL(name, DIRECTORY), "utf8"));

export const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
export const hex = (raw) => Buffer.from(raw).toString("hex");

/** Return the ChannelTerms of a vector. */
export function termsOf(row) {
  return {
    outpoint: { txid: row.funding_txid, vout: row.funding_vout },
    serverPubkey: bytes(row.server_pubkey),
    clientPubkey: bytes(row.client_pubkey),
    expTime: row.exp_time,
    fundingValue: row.funding_value,
    changeScript: row.change_script ? bytes(row.change_script) : decodeAddress(findNetwork(row.network), row.change_address),
  };
}
