/** Bitcoin's networks: their chain ids (CAIP-2), and addresses with the scripts that they mean. */

import { bech32, bech32m, createBase58check } from "@scure/base";

import { concatBytes, sha256 } from "./bytes.js";
import { PaychanError } from "./errors.js";

const base58check = createBase58check(sha256);

export type NetworkName = "live" | "test" | "testnet4" | "signet" | "regtest";

export interface Network {
  readonly name: NetworkName;
  /** CAIP-2: `bip122:` and the first 32 hex digits of the genesis block's hash. */
  readonly chain: string;
  readonly p2pkh: number;
  readonly p2sh: number;
  readonly bech32: string;
  /** BIP 44's coin type, for key derivation. */
  readonly coin: 0 | 1;
}

function network(name: NetworkName, genesis: string, hrp: string): Network {
  const isLive = name === "live";
  return {
    name,
    chain: `bip122:${genesis}`,
    p2pkh: isLive ? 0x00 : 0x6f,
    p2sh: isLive ? 0x05 : 0xc4,
    bech32: hrp,
    coin: isLive ? 0 : 1,
  };
}

export const NETWORKS: readonly Network[] = [
  network("live", "000000000019d6689c085ae165831e93", "bc"),
  network("test", "000000000933ea01ad0ee984209779ba", "tb"),
  network("testnet4", "00000000da84f2bafbbc53dee25a72ae", "tb"),
  network("signet", "00000008819873e925422c1ff0f99f7c", "tb"),
  network("regtest", "0f9188f13cb7b2c71f2a335e3a4fc328", "bcrt"),
];

/** Return the network of a name ("regtest") or a chain id ("bip122:..."); null if there is none. */
export function findNetwork(nameOrChain: unknown): Network | null {
  return NETWORKS.find((one) => one.name === nameOrChain || one.chain === nameOrChain) ?? null;
}

export function encodeP2sh(network: Network, hash: Uint8Array): string {
  return base58check.encode(concatBytes(Uint8Array.of(network.p2sh), hash));
}

export function encodeP2pkh(network: Network, hash: Uint8Array): string {
  return base58check.encode(concatBytes(Uint8Array.of(network.p2pkh), hash));
}

/** Return the script pubkey that an address means: P2PKH, P2SH, P2WPKH, P2WSH, P2TR. Throws invalid_address. */
export function decodeAddress(network: Network, address: string): Uint8Array {
  const script = decodeBase58(network, address) ?? decodeSegwit(network, address);
  if (script === null) throw new PaychanError("invalid_address", `this is no address of network ${network.name}`);
  return script;
}

function decodeBase58(network: Network, address: string): Uint8Array | null {
  let raw: Uint8Array;
  try {
    raw = base58check.decode(address);
  } catch {
    return null;
  }
  if (raw.length !== 21) return null;
  const hash = raw.subarray(1);
  if (raw[0] === network.p2pkh) return concatBytes(Uint8Array.of(0x76, 0xa9, 20), hash, Uint8Array.of(0x88, 0xac));
  if (raw[0] === network.p2sh) return concatBytes(Uint8Array.of(0xa9, 20), hash, Uint8Array.of(0x87));
  return null;
}

/** BIP 173 and BIP 350: version 0 is in Bech32 with 20 or 32 bytes, version 1 in Bech32m with 32; others mean nothing yet. */
function decodeSegwit(network: Network, address: string): Uint8Array | null {
  for (const [code, version] of [
    [bech32, 0],
    [bech32m, 1],
  ] as const) {
    const decoded = code.decodeUnsafe(address, 90);
    if (!decoded || decoded.prefix !== network.bech32 || decoded.words[0] !== version) continue;
    const program = code.fromWordsUnsafe(decoded.words.slice(1));
    if (!program || !(program.length === 32 || (version === 0 && program.length === 20))) continue;
    return concatBytes(Uint8Array.of(version === 0 ? 0x00 : 0x51, program.length), program);
  }
  return null;
}
