/** Where a payer keeps its words and channels. Whatever is written is durable before a payment is sent. */

export interface Store {
  /** Return what was written under a name; null if nothing was. */
  read(name: string): Promise<string | null>;
  /** Write: when this resolves, a power cut loses nothing of it. Rejects with code "state"; the old or the new text is there
   * then. */
  write(name: string, text: string): Promise<void>;
  /** Return the names that were written. */
  names(): Promise<string[]>;
  /** Do some work while nobody else who uses this storage does any under the same name. */
  exclusively<T>(name: string, work: () => Promise<T>): Promise<T>;
}

/** Work that queues up behind other work of the same name, within this process. */
export class Queues {
  private readonly tails = new Map<string, Promise<unknown>>();

  run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.tails.get(name) ?? Promise.resolve();
    const done = before.then(work, work);
    const tail = done.catch(() => undefined);
    this.tails.set(name, tail);
    void tail.then(() => {
      if (this.tails.get(name) === tail) this.tails.delete(name);
    });
    return done;
  }
}
