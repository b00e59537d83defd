/** A payer's storage in a directory of Node.js: one file a name, replaced as a whole and synced, for one process at a time. */

import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { open, readdir, readFile, rename } from "node:fs/promises";
import { join, resolve } from "node:path";

import { PaychanError } from "../core/errors.js";
import { Queues, type Store } from "./store.js";

const SUFFIX = ".json";
const LOCK = "lock";
const NAME = /^[a-z0-9-]+$/;

const hasCode = (error: unknown, code: string): boolean => (error as NodeJS.ErrnoException)?.code === code;
const broken = (error: unknown): PaychanError =>
  new PaychanError("state", `the storage failed: ${(error as Error).message}`, { cause: error });

export class FileStore implements Store {
  private readonly queues = new Queues();

  private constructor(
    private readonly directory: string,
    private isHeld: boolean,
  ) {}

  /** Open a directory, made if missing (mode 0700). Throws busy while another live process has it open, state if it cannot be
   * used. */
  static open(directory: string): FileStore {
    const path = resolve(directory);
    try {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      takeLock(path);
    } catch (error) {
      throw error instanceof PaychanError ? error : broken(error);
    }
    return new FileStore(path, true);
  }

  async read(name: string): Promise<string | null> {
    try {
      return await readFile(this.path(name), "utf8");
    } catch (error) {
      if (hasCode(error, "ENOENT")) return null;
      throw broken(error);
    }
  }

  async write(name: string, text: string): Promise<void> {
    if (!this.isHeld) throw new PaychanError("state", "the storage was closed");
    const path = this.path(name);
    await this.queues.run(`write ${name}`, async () => {
      try {
        await writeSynced(`${path}.tmp`, text);
        await rename(`${path}.tmp`, path);
        await syncDirectory(this.directory);
      } catch (error) {
        throw broken(error);
      }
    });
  }

  async names(): Promise<string[]> {
    const files = await readdir(this.directory);
    return files.filter((file) => file.endsWith(SUFFIX)).map((file) => file.slice(0, -SUFFIX.length));
  }

  exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
    return this.queues.run(name, work);
  }

  /** Give the directory up for other processes; nothing is written any more. */
  close(): void {
    if (this.isHeld) unlinkSync(join(this.directory, LOCK));
    this.isHeld = false;
  }

  private path(name: string): string {
    if (!NAME.test(name)) throw new PaychanError("state", "this is no name for the storage");
    return join(this.directory, name + SUFFIX);
  }
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** A renamed file survives a power cut once its directory is synced; Windows knows no such call, and needs none. */
async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The lock names a process; that of one which has ended is taken over. A link appears whole, with its content, or not at all. */
function takeLock(directory: string): void {
  const lock = join(directory, LOCK);
  const own = join(directory, `${LOCK}.${process.pid}.${randomBytes(4).toString("hex")}`);
  writeFileSync(own, String(process.pid), { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < 3; attempt += 1) {
      try {
        linkSync(own, lock);
        return;
      } catch (error) {
        if (!hasCode(error, "EEXIST")) throw error;
      }
      dropDeadLock(lock, `${own}.dead`);
    }
    throw new PaychanError("busy", `${directory}: another process is using it`);
  } finally {
    unlinkSync(own);
  }
}

/** Move the lock of a dead process aside. If meanwhile another has taken it over, that one's is put back. */
function dropDeadLock(lock: string, aside: string): void {
  const busy = (pid: number): PaychanError => new PaychanError("busy", `${lock}: process ${pid} is using this storage`);
  try {
    const holder = Number(readFileSync(lock, "utf8"));
    if (isAlive(holder)) throw busy(holder);
    renameSync(lock, aside);
    const moved = Number(readFileSync(aside, "utf8"));
    if (moved !== holder) linkSync(aside, lock);
    unlinkSync(aside);
    if (moved !== holder) throw busy(moved);
  } catch (error) {
    if (!hasCode(error, "ENOENT")) throw error;
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !hasCode(error, "ESRCH");
  }
}
