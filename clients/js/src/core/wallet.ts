/** The payer's keys: all of them come from twelve words (BIP 39, BIP 32), which are the backup. */

import { HDKey } from "@scure/bip32";
import { generateMnemonic, mnemonicToSeedSync, validateMnemonic } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";

import { PaychanError } from "./errors.js";
import { encodeP2pkh, type Network } from "./network.js";
import { hash160 } from "./script.js";

/** First step of the path m/402'/coin'/index' : HTTP's "Payment Required". */
const PURPOSE = 402;

export interface ChannelKey {
  readonly secret: Uint8Array;
  readonly pubkey: Uint8Array;
}

/** Keys by number: each channel has one of its own, so that servers cannot tell that they have the same payer. */
export class Wallet {
  private constructor(
    /** The backup: twelve English words. Whoever has them has the money. */
    readonly words: string,
    private readonly root: HDKey,
  ) {}

  /** Make a new wallet, from the system's randomness. */
  static create(): Wallet {
    return Wallet.restore(generateMnemonic(wordlist, 128));
  }

  /** Return the wallet of these words; blanks and capitals do not matter. Throws invalid_key. */
  static restore(words: string): Wallet {
    const plain = words.trim().toLowerCase().split(/\s+/).join(" ");
    if (!validateMnemonic(plain, wordlist)) {
      throw new PaychanError("invalid_key", "these are not the words of a backup: one is missing, misspelt or out of place");
    }
    return new Wallet(plain, HDKey.fromMasterSeed(mnemonicToSeedSync(plain)));
  }

  /** Return key number `index` of a network. */
  key(network: Network, index: number): ChannelKey {
    const { privateKey, publicKey } = this.root.derive(`m/${PURPOSE}'/${network.coin}'/${index}'`);
    if (!privateKey || !publicKey) throw new PaychanError("invalid_key", "this key cannot be derived");
    return { secret: privateKey, pubkey: publicKey };
  }
}

/** Return the P2PKH address of a public key: where a channel's change goes unless told otherwise. */
export const keyAddress = (network: Network, pubkey: Uint8Array): string => encodeP2pkh(network, hash160(pubkey));
