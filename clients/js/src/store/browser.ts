/** A payer's storage in a browser: IndexedDB, written through to the disk, shared by the tabs of an origin. */

import { openDB, type IDBPDatabase } from "idb";

import { PaychanError } from "../core/errors.js";
import { Queues, type Store } from "./store.js";

const TABLE = "state";

export class BrowserStore implements Store {
  private readonly queues = new Queues();

  private constructor(
    private readonly name: string,
    private readonly database: IDBPDatabase,
  ) {}

  /** Open the database of a name, and ask the browser not to clear it when space gets scarce. Throws state. */
  static async open(name = "paychan"): Promise<BrowserStore> {
    try {
      const database = await openDB(name, 1, { upgrade: (fresh) => void fresh.createObjectStore(TABLE) });
      await navigator.storage?.persist?.();
      return new BrowserStore(name, database);
    } catch (error) {
      throw broken(error);
    }
  }

  async read(name: string): Promise<string | null> {
    const found: unknown = await this.database.get(TABLE, name);
    return typeof found === "string" ? found : null;
  }

  async write(name: string, text: string): Promise<void> {
    try {
      const transaction = this.database.transaction(TABLE, "readwrite", { durability: "strict" });
      await Promise.all([transaction.store.put(text, name), transaction.done]);
    } catch (error) {
      throw broken(error);
    }
  }

  async names(): Promise<string[]> {
    return (await this.database.getAllKeys(TABLE)).map(String);
  }

  /** Tabs wait for each other where the browser has Web Locks (in secure contexts, which localhost is). */
  exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    const locks = globalThis.navigator?.locks;
    return locks ? (locks.request(`${this.name} ${name}`, work) as Promise<T>) : this.queues.run(name, work);
  }

  close(): void {
    this.database.close();
  }
}

const broken = (error: unknown): PaychanError =>
  new PaychanError("state", `the browser's storage failed: ${(error as Error).message}`, { cause: error });
