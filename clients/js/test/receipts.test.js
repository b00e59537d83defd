/** Aim: signed receipts are judged as the Python side judges them. Method: the repository's vectors, which it also passes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { examineReceipts, readKeys, readReceipt, WELL_KNOWN } from "../dist/receipts.js";
import { readVectors } from "./vectors.js";

const { keys: set, wellKnown, cases } = readVectors("receipts.json");
const keys = readKeys(JSON.stringify(set));

test("the keys are known by their thumbprints, alone or in a set", () => {
  assert.equal(wellKnown, WELL_KNOWN);
  assert.deepEqual(
    [...keys.keys()],
    set.keys.map((jwk) => jwk.kid),
  );
  assert.deepEqual([...readKeys(JSON.stringify(set.keys[0])).keys()], [set.keys[0].kid]);
  for (const bad of ["", "{}", "[]", JSON.stringify({ keys: [{ kty: "EC" }] }), JSON.stringify({ ...set.keys[0], x: "AA" })]) {
    assert.throws(
      () => readKeys(bad),
      (error) => error.code === "invalid_receipt",
    );
  }
});

for (const row of cases) {
  test(`the verdict of "${row.case}"`, () => {
    const found = examineReceipts(row.lines, keys);
    assert.deepEqual([found.verdict === "good", found.receipts, found.amount], [row.good, row.receipts, row.amount]);
    if (row.verdict) assert.equal(found.verdict, row.verdict);
  });
}

test("each changed letter of a receipt is noticed", () => {
  const [line] = cases[0].lines;
  for (let at = 0; at < line.length; at += 7) {
    const changed = line.slice(0, at) + (line[at] === "A" ? "B" : "A") + line.slice(at + 1);
    assert.throws(
      () => readReceipt(changed, keys),
      (error) => error.code === "invalid_receipt",
      String(at),
    );
  }
  assert.throws(
    () => readReceipt(`${line}.x`, keys),
    (error) => error.code === "invalid_receipt",
  );
});
