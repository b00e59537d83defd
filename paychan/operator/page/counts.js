/** What happens between two looks at the counts: rates and latencies by differences, which need no server to reckon them. */

const KEPT = 150;

/** Looks at /operator/v1/counts, the latest of them. */
export class Counts {
  constructor() {
    this.looks = [];
  }

  add(counts) {
    const last = this.looks.at(-1);
    if (last && counts.taken_at <= last.taken_at) return;
    this.looks.push(counts);
    this.looks.splice(0, this.looks.length - KEPT);
  }

  /** Return [[milliseconds, number or null]] of what `between(before, after, seconds)` finds from look to look. */
  series(between) {
    return this.looks.slice(1).map((after, at) => {
      const before = this.looks[at];
      const value = between(before, after, after.taken_at - before.taken_at);
      return [after.taken_at * 1000, Number.isFinite(value) && value >= 0 ? value : null];
    });
  }

  get newest() {
    return this.looks.at(-1) ?? null;
  }
}

/** Return the sum of a metric's samples, of those whose labels are fine. */
export function total(counts, name, isFine = () => true) {
  return (counts.families[name] ?? []).filter((row) => isFine(row.labels)).reduce((sum, row) => sum + row.value, 0);
}

export const isPayment = (labels) => labels.outcome !== "passed_on";
export const isTaken = (labels) => ["accepted", "exhausted", "repeated"].includes(labels.outcome);

/** Return a function for `series`: how much a counter grew each second. */
export const perSecond = (name, isFine) => (before, after, seconds) => (total(after, name, isFine) - total(before, name, isFine)) / seconds;

/** Return a function for `series`: the mean of what a histogram counted. */
export const mean = (name) => (before, after) => {
  const [one, other] = [histogram(before, name), histogram(after, name)];
  return one && other && other.count > one.count ? (other.sum - one.sum) / (other.count - one.count) : Number.NaN;
};

/** Return a function for `series`: below what so large a part of a histogram's counts lie, by its buckets. */
export const quantile = (name, part) => (before, after) => {
  const [one, other] = [histogram(before, name), histogram(after, name)];
  if (!one || !other || other.count <= one.count) return Number.NaN;
  const wanted = (other.count - one.count) * part;
  let below = 0;
  let lower = 0;
  for (const [at, [upper, counted]] of other.buckets.entries()) {
    const here = counted - (one.buckets[at]?.[1] ?? 0);
    if (here >= wanted) {
      if (upper === null) return lower;
      return lower + ((upper - lower) * (wanted - below)) / Math.max(1e-9, here - below);
    }
    below = here;
    lower = upper ?? lower;
  }
  return lower;
};

const histogram = (counts, name) => (counts.families[name] ?? [])[0];
