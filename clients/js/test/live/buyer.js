/** A buyer that buys article after article until it is killed; prints a line for each that it got. Arguments: directory, shop. */

import { debugFund, Payer } from "../../dist/index.js";
import { FileStore } from "../../dist/store/file.js";

const [directory, shop] = process.argv.slice(2);
const budgets = { request: 100, day: 10_000_000, open: 200_000 };
const payer = await Payer.open({ store: FileStore.open(directory), network: "test", budgets, fund: debugFund });
for (;;) {
  const answer = await payer.fetch(`${shop}/articles/change`);
  await answer.arrayBuffer();
  process.stdout.write(`${answer.status}\n`);
}
